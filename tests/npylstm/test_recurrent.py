"""GRU, simple RNN, projections, both directions, given states and lengths.

Tolerances as in test_lstm: float64 to 1e-12, float32 to 5e-6 over 30 steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
from backends import BACKENDS, COMPILED
from builders import agree, make_chain, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from npylstm import FormatError, Model, ModelSpec, ShapeError, StateError
from npylstm.activations import Activation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D
from npylstm.ops.shaping import Concatenate
from npylstm.spec import Case, Edge, TensorSpec

ATOL = {"float64": 1e-12, "float32": 5e-6}

KINDS: dict[str, Any] = {
    "lstm": lambda **o: LSTM(3, 5, **o),
    "projection": lambda **o: LSTM(3, 5, projection=2, **o),
    "gru": lambda **o: GRU(3, 5, **o),
    "gru before": lambda **o: GRU(3, 5, reset_after=False, **o),
    "rnn": lambda **o: SimpleRNN(3, 5, **o),
}


def two_ways(kind: str, **options: Any) -> Bidirectional:
    forward = KINDS[kind](**options)
    return Bidirectional(forward, replace(forward, go_backwards=True))


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["gru", "gru before", "tanh", "relu"]),
    units=st.integers(1, 20),
    features=st.integers(1, 9),
    steps=st.integers(1, 30),
    batch=st.integers(1, 7),
    use_bias=st.booleans(),
    begun=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    backend=st.sampled_from(BACKENDS),
    seed=st.integers(0, 2**20),
)
def test_gru_and_simple_rnn_equal_the_oracle(
    kind: str, units: int, features: int, steps: int, batch: int, use_bias: bool, begun: bool,
    dtype: str, backend: str, seed: int,
) -> None:  # fmt: skip
    options: dict[str, Any] = {"use_bias": use_bias, "return_sequences": True}
    if kind.startswith("gru"):
        layer: Any = GRU(features, units, reset_after=kind == "gru", **options)
    else:
        layer = SimpleRNN(features, units, Activation(kind), **options)
    spec = make_chain(layer, shape=("batch", "steps", features), seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, steps, features)).astype(dtype)
    h0 = rng.uniform(-1, 1, (batch, units)).astype(dtype) if begun else None
    weights = spec["layer_0"].weights
    if kind.startswith("gru"):
        expected = oracle.gru(weights, x, h0, kind == "gru")
    else:
        expected = oracle.simple_rnn(weights, x, h0, kind)
    state = {"layer_0": {"h": h0}} if begun else None
    y, after = Model(spec, backend).predict(x, state=state, return_state=True)
    atol = ATOL[dtype] * max(1.0, np.abs(expected).max())  # relu may grow
    np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(after["layer_0"]["h"], expected[:, -1], rtol=0, atol=atol)


def test_a_projection_follows_the_output_gate(backend: str) -> None:
    """With the identity as projection it is the plain layer; with P it is h P."""
    plain = make_chain(LSTM(3, 5, return_sequences=True), dtype="float64")
    weights = dict(plain["layer_0"].weights)
    layer = LSTM(3, 5, return_sequences=True, projection=5)
    projected = replace(plain["layer_0"], layer=layer, weights={**weights, "P": np.eye(5)})
    x = np.random.default_rng(0).normal(size=(2, 7, 3))
    same = Model(replace(plain, layers=(projected,)), backend).predict(x)
    np.testing.assert_allclose(same, Model(plain, backend).predict(x), rtol=0, atol=1e-14)

    spec = make_chain(LSTM(3, 5, return_sequences=True, projection=2), dtype="float64")
    w = spec["layer_0"].weights
    h, c = np.zeros((2, 2)), np.zeros((2, 5))
    y = Model(spec, backend).predict(x)
    for t in range(7):  # the papers' formula, written out
        z = {g: x[:, t] @ w[f"W_{g}"] + h @ w[f"U_{g}"] + w[f"b_{g}"] for g in "ifco"}
        i, f, o = (1 / (1 + np.exp(-z[g])) for g in "ifo")
        c = f * c + i * np.tanh(z["c"])
        h = (o * np.tanh(c)) @ w["P"]
        np.testing.assert_allclose(y[:, t], h, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("major", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_a_bidirectional_layer_is_its_two_layers(
    kind: str, major: bool, sequences: bool, backend: str
) -> None:
    options = {"return_sequences": sequences, "return_state": True, "time_major": major}
    shape = ("steps", "batch", 3) if major else ("batch", "steps", 3)
    spec = make_chain(two_ways(kind, **options), shape=shape, seed=3)
    x = np.random.default_rng(0).normal(size=(9, 4, 3) if major else (4, 9, 3)).astype("float32")
    y = Model(spec, backend).predict(x)
    halves = {}
    for way, layer in spec.layers[0].layer.directions.items():  # type: ignore[attr-defined]
        own = {k.split("/")[1]: w for k, w in spec.layers[0].weights.items() if way in k}
        alone = make_chain(layer, shape=shape)
        alone = replace(alone, layers=(replace(alone.layers[0], weights=own),))
        halves[way] = Model(alone, backend).predict(x)
    back = halves["backward"]["layer_0"]
    if sequences:
        back = np.flip(back, 0 if major else 1)
    joined = np.concatenate([halves["forward"]["layer_0"], back], -1)
    np.testing.assert_allclose(y["layer_0"], joined, rtol=0, atol=1e-7)
    for name in spec.layers[0].layer.state_shapes():
        way, letter = name.split("/")
        np.testing.assert_allclose(
            y[f"layer_0/{name}"], halves[way][f"layer_0/{letter}"], rtol=0, atol=1e-7
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("major", [False, True])
def test_lengths_are_as_if_each_sequence_came_alone(
    kind: str, both: bool, zeros: bool, major: bool, backend: str
) -> None:
    options = {
        "return_sequences": True, "return_state": True, "time_major": major,
        "zero_output_for_mask": zeros,
    }  # fmt: skip
    layer = two_ways(kind, **options) if both else KINDS[kind](**options)
    shape = ("steps", "batch", 3) if major else ("batch", "steps", 3)
    spec = make_chain(layer, shape=shape, seed=4, dtype="float64")
    model = Model(spec, backend)
    lengths = np.array([5, 9, 1, 9, 3, 7])
    x = np.random.default_rng(0).normal(size=(6, 9, 3))
    given = x.swapaxes(0, 1) if major else x
    y, after = model.predict(given, lengths=lengths, return_state=True)
    main = y["layer_0"].swapaxes(0, 1) if major else y["layer_0"]
    size = 5 if kind != "projection" else 2
    for r, n in enumerate(lengths):
        own = x[r : r + 1, :n]
        alone, last = model.predict(own.swapaxes(0, 1) if major else own, return_state=True)
        expected = alone["layer_0"].swapaxes(0, 1) if major else alone["layer_0"]
        np.testing.assert_allclose(main[r, :n], expected[0], rtol=0, atol=1e-14)
        beyond = main[r, n:]
        held = np.zeros(size) if zeros else expected[0, -1, :size]
        still = np.broadcast_to(held, (9 - n, size))
        np.testing.assert_allclose(beyond[:, :size], still, rtol=0, atol=1e-14)
        if both:  # the backward layer has not begun there
            assert not beyond[:, size:].any()
        for name, array in last["layer_0"].items():
            np.testing.assert_allclose(after["layer_0"][name][r], array[0], rtol=0, atol=1e-14)


def test_the_last_output_with_lengths(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    for zeros in (False, True):
        spec = make_chain(LSTM(3, 5, zero_output_for_mask=zeros))
        y = Model(spec, backend).predict(x, lengths=[6, 4])
        alone = Model(spec, backend).predict(x[1:, :4])[0]
        if zeros:
            np.testing.assert_array_equal(y[1], np.zeros(5))
        else:
            agree(y[1], alone, 3 + 5 + 1, backend)


def given_states(layer: Any, dtype: str = "float64") -> ModelSpec:
    rng = np.random.default_rng(1)
    names = [name.replace("/", "_") for name in layer.state_shapes()]
    inputs = [TensorSpec("x", ("batch", "steps", 3))]
    inputs += [
        TensorSpec(n, ("batch", *s))
        for n, s in zip(names, layer.state_shapes().values(), strict=True)
    ]
    made = make_layer("rnn", layer, rng, dtype)
    edge = Edge.call(made, *(t.name for t in inputs))
    return ModelSpec((made,), (edge,), tuple(inputs), edge.outputs, dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_a_state_may_come_from_the_graph(kind: str, both: bool, backend: str) -> None:
    options = {"return_sequences": True, "return_state": True}
    layer = two_ways(kind, **options) if both else KINDS[kind](**options)
    spec = given_states(layer)
    assert spec.state_shapes() == {}
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 6, 3))
    states = {k: rng.uniform(-1, 1, (4, *s)) for k, s in layer.state_shapes().items()}
    y = Model(spec, backend).predict([x, *states.values()])
    carried = make_chain(layer, dtype="float64")
    carried = replace(carried, layers=(replace(spec.layers[0], name="layer_0"),))
    z = Model(carried, backend).predict(x, state={"layer_0": states})
    for a, b in zip(y.values(), z.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_trace_of_every_kind() -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 3))
    fields = {"lstm": 6, "projection": 6, "gru": 4, "gru before": 4, "rnn": 1}
    for kind, count in fields.items():
        spec = make_chain(two_ways(kind, return_sequences=True), dtype="float64")
        model = Model(spec, "numpy")
        traced = model.trace(x)
        assert set(traced) == {"layer_0/forward", "layer_0/backward"}
        y = model.predict(x)
        sides = [traced["layer_0/forward"].h, traced["layer_0/backward"].h]
        np.testing.assert_array_equal(np.concatenate(sides, -1), y)
        assert len(traced["layer_0/forward"]) == count


def test_bits_do_not_depend_on_neighbours_or_threads() -> None:
    x = np.random.default_rng(0).normal(size=(11, 23, 3)).astype("float32")
    lengths = np.arange(13, 24)
    for kind in KINDS:
        model = Model(make_chain(two_ways(kind, return_sequences=True)), COMPILED)
        whole = model.predict(x, lengths=lengths)
        for size in (1, 3, 4):
            np.testing.assert_array_equal(model.predict(x, lengths=lengths, batch_size=size), whole)
        np.testing.assert_array_equal(model.predict(x, lengths=lengths, threads=3), whole)
        # The second time, calls go the short way.
        results = [model.predict(x, threads=threads) for threads in (1, 1, 2, 2, 3, 3)]
        for y in results[1:]:
            np.testing.assert_array_equal(y, results[0])


def test_what_does_not_fit_is_named(backend: str) -> None:
    with pytest.raises(FormatError, match="features: forward has 3, backward 4"):
        Bidirectional(LSTM(3, 5), LSTM(4, 5, go_backwards=True))
    with pytest.raises(FormatError, match="go_backwards of the backward layer alone"):
        Bidirectional(LSTM(3, 5), LSTM(3, 5))
    with pytest.raises(
        FormatError, match="merge_mode: expected one of concat, sum, mul, ave, none, got 'xor'"
    ):
        Bidirectional(LSTM(3, 5), LSTM(3, 5, go_backwards=True), "xor")
    with pytest.raises(FormatError, match="two recurrent layers, got lstm and conv1d"):
        Bidirectional(LSTM(3, 5), Conv1D(3, 5, 2))
    with pytest.raises(FormatError, match="projection: expected 0 or more, got -1"):
        LSTM(3, 5, projection=-1)
    model = Model(make_chain(GRU(3, 5)), backend)
    x = np.zeros((2, 4, 3))
    for lengths, message in (
        ([1], "lengths: expected 2 integers, got int64 of shape \\(1,\\)"),
        ([1.0, 2.0], "lengths: expected 2 integers, got float64"),
        ([0, 2], "lengths: expected 1 to 4, got 0 to 2"),
        ([1, 5], "lengths: expected 1 to 4, got 1 to 5"),
    ):
        with pytest.raises(ShapeError, match=message):
            model.predict(x, lengths=lengths)
    with pytest.raises(StateError, match=r"state of layer_0: expected \['h'\], got \['c', 'h'\]"):
        model.predict(x, state={"layer_0": {"h": x[:, 0], "c": x[:, 0]}})
    pooled = make_chain(Conv1D(3, 3, 2), GRU(3, 5))
    with pytest.raises(
        ShapeError, match=r"layer_1 reads .* whose steps are not those of the input x"
    ):
        Model(pooled, backend).predict(x, lengths=[1, 2])
    with pytest.raises(ShapeError, match="the model has no recurrent layer"):
        Model(make_chain(Concatenate(2)), backend).predict(x, lengths=[1, 2])
    wrong = given_states(GRU(3, 5))
    with pytest.raises(FormatError, match=r"expected a state of \(batch, 5\), got \(batch, 4\)"):
        replace(wrong, inputs=(wrong.inputs[0], TensorSpec("h", ("batch", 4))))


def test_recorded_lengths_are_kept(tmp_path: Any) -> None:
    spec = make_chain(two_ways("gru", return_sequences=True, zero_output_for_mask=True))
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    y = Model(spec, "numpy").predict(x, lengths=[4, 2])
    recorded = Model(spec.with_cases([Case({"x": x}, {"layer_0": y}, {}, np.array([4, 2]))]))
    recorded.save(tmp_path / "model.npz")
    from npylstm import load

    again = load(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.spec.cases[0].lengths, [4, 2])
    assert again.verify().passed
    for lengths, message in (
        (np.array([4]), r"case/0/lengths: expected shape \(2,\), got \(1,\)"),
        (np.array([4.0, 2.0]), "case/0/lengths: expected integers, got float64"),
    ):
        with pytest.raises(FormatError, match=message):
            spec.with_cases([Case({"x": x}, {"layer_0": y}, {}, lengths)])
