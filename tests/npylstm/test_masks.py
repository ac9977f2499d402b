"""Masks in recurrent layers against a plain loop in float64, and what is said where one does not fit.

The oracle knows no masks: it runs over the steps that count, cut out of the sequence, and what it
gives is laid out again. The tolerance in float64 is a few units in the last place of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import oracle
import pytest
from builders import agree, make_chain, make_layer

from npylstm import FormatError, Model, ModelSpec, ShapeError, load
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.masking import Masking
from npylstm.spec import Edge, TensorSpec

FEATURES, UNITS = 3, 4
MASK = np.array(
    [
        [step == "1" for step in row]
        for row in ("111111", "000111", "111000", "110011", "010101", "000000", "011010")
    ]
)
BATCH, STEPS = MASK.shape
EMPTY = 5
TOLERANCE = {"float64": 1e-14, "float32": 2e-6}  # 45 and 17 ulp of one, for six steps of sums

KINDS = ("lstm", "gru_after", "gru_before", "rnn")


def make(kind: str, **options: Any) -> Operation:
    if kind == "lstm":
        return LSTM(FEATURES, UNITS, **options)
    if kind == "rnn":
        return SimpleRNN(FEATURES, UNITS, **options)
    return GRU(FEATURES, UNITS, reset_after=kind == "gru_after", **options)


def cell(
    kind: str, weights: Mapping[str, np.ndarray], x: np.ndarray, state: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs and last state of one sequence without a mask."""
    if kind == "lstm":
        hs, cs = oracle.lstm(weights, x[None], *(a[None] for a in state))
        return hs[0], [hs[0, -1] if len(x) else state[0], cs[0]]
    if kind == "rnn":
        hs = oracle.simple_rnn(weights, x[None], state[0][None])
    else:
        hs = oracle.gru(weights, x[None], state[0][None], reset_after=kind == "gru_after")
    return hs[0], [hs[0, -1] if len(x) else state[0]]


def expected(
    kind: str,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    mask: np.ndarray,
    state: list[np.ndarray] | None = None,
    backwards: bool = False,
    zeros: bool = False,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs of all steps in the order of computation, and the state after them."""
    count = 2 if kind == "lstm" else 1
    begins = state or [np.zeros((len(x), UNITS)) for _ in range(count)]
    if backwards:
        x, mask = x[:, ::-1], mask[:, ::-1]
    y = np.zeros((*mask.shape, UNITS))
    after: list[list[np.ndarray]] = []
    for row in range(len(x)):
        hs, last = cell(kind, weights, x[row][mask[row]], [a[row] for a in begins])
        after.append(last)
        place = -1
        for t, counts in enumerate(mask[row]):
            place += counts
            if counts or (place >= 0 and not zeros):
                y[row, t] = hs[place]
    return y, [np.stack(arrays) for arrays in zip(*after, strict=True)]


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(BATCH, STEPS, FEATURES))


def begin(kind: str, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (BATCH, UNITS)) for _ in range(2 if kind == "lstm" else 1)]


def in_graph(layer: Operation, dtype: str = "float64", seed: int = 0) -> ModelSpec:
    """A model of a layer that takes its mask as an input."""
    spec = make_layer("layer_0", layer, np.random.default_rng(seed), dtype)
    edge = Edge.call(spec, "x", "mask")
    inputs = TensorSpec("x", ("batch", "steps", FEATURES)), TensorSpec("mask", ("batch", "steps"))
    return ModelSpec(
        layers=(spec,), edges=(edge,), inputs=inputs, outputs=edge.outputs, dtype=dtype
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_against_a_loop_over_the_steps_that_count(kind: str, dtype: str, backend: str) -> None:
    x = data().astype(dtype)
    for backwards, zeros, sequences in itertools.product((False, True), repeat=3):
        options = {"go_backwards": backwards, "zero_output_for_mask": zeros, "return_sequences": sequences}  # fmt: skip
        given = make_chain(make(kind, **options), shape=("batch", "steps", FEATURES), dtype=dtype)
        own = in_graph(make(kind, masked=True, **options), dtype)
        weights = given.layers[0].weights
        y, after = expected(kind, weights, x.astype(float), MASK, None, backwards, zeros)
        y = y if sequences else y[:, -1]
        runs = [
            Model(given, backend).predict(x, mask=MASK, return_state=True),
            Model(own, backend).predict([x, MASK], return_state=True),
        ]
        for ours, state in runs:
            np.testing.assert_allclose(ours, y, atol=TOLERANCE[dtype], rtol=0)
            for name, array in zip(state["layer_0"], after, strict=True):
                made = state["layer_0"][name]
                np.testing.assert_allclose(made, array, atol=TOLERANCE[dtype], rtol=0)
                assert not made[EMPTY].any()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_given_states(kind: str, zeros: bool, backend: str) -> None:
    x, state = data(), begin(kind)
    options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": zeros}
    spec = in_graph(make(kind, masked=True, **options))
    y, after = expected(kind, spec.layers[0].weights, x, MASK, state, zeros=zeros)
    names = list(spec.state_shapes()["layer_0"])
    given = {"layer_0": dict(zip(names, state, strict=True))}
    ours, last = Model(spec, backend).predict([x, MASK], state=given, return_state=True)
    np.testing.assert_allclose(ours["layer_0"], y, atol=1e-14, rtol=0)
    for name, array, first in zip(names, after, state, strict=True):
        np.testing.assert_allclose(last["layer_0"][name], array, atol=1e-14, rtol=0)
        np.testing.assert_array_equal(last["layer_0"][name][EMPTY], first[EMPTY])
        np.testing.assert_array_equal(ours[f"layer_0/{name}"], last["layer_0"][name])
    assert not ours["layer_0"][EMPTY].any()  # no step gave an output that could be repeated


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs(kind: str, sequences: bool, backend: str) -> None:
    x = data()
    for masked, zeros in itertools.product((False, True), repeat=2):
        options = {"masked": masked, "return_sequences": sequences, "zero_output_for_mask": zeros}
        pair = Bidirectional(make(kind, **options), make(kind, go_backwards=True, **options))
        spec = in_graph(pair) if masked else make_chain(pair, dtype="float64")
        weights = spec.layers[0].weights
        sides = []
        for way in ("forward", "backward"):
            mine = {k.split("/")[1]: w for k, w in weights.items() if k.startswith(way)}
            back = way == "backward"
            y, _ = expected(kind, mine, x, MASK, backwards=back, zeros=zeros)
            sides.append((y[:, ::-1] if back else y) if sequences else y[:, -1])
        model = Model(spec, backend)
        ours = model.predict([x, MASK]) if masked else model.predict(x, mask=MASK)
        np.testing.assert_allclose(ours, np.concatenate(sides, -1), atol=1e-14, rtol=0)


def test_lengths_are_masks(backend: str) -> None:
    x, lengths = data(), np.array([6, 1, 3, 2, 5, 4, 6])
    mask = np.arange(STEPS) < lengths[:, None]
    for kind in KINDS:
        for backwards in (False, True):
            layer = make(kind, return_sequences=True, go_backwards=backwards)
            spec = make_chain(layer, dtype="float64")
            model = Model(spec, backend)
            y, _ = expected(kind, spec.layers[0].weights, x, mask, backwards=backwards)
            np.testing.assert_allclose(model.predict(x, lengths=lengths), y, atol=1e-14, rtol=0)
            np.testing.assert_array_equal(
                model.predict(x, mask=mask), model.predict(x, lengths=lengths)
            )


def test_what_stands_at_masked_steps_does_not_matter(backend: str) -> None:
    x = data()
    odd = [np.where(MASK[..., None], x, v) for v in (1e30, np.inf, -np.inf, np.nan)]
    for kind in KINDS:
        model = Model(make_chain(make(kind, return_sequences=True), dtype="float64"), backend)
        y, state = model.predict(x, mask=MASK, return_state=True)
        for other in odd:
            with np.errstate(all="ignore"):
                z, after = model.predict(other, mask=MASK, return_state=True)
            np.testing.assert_array_equal(z, y)
            for name, array in state["layer_0"].items():
                np.testing.assert_array_equal(after["layer_0"][name], array)


def test_any_number_but_zero_counts(backend: str) -> None:
    model = Model(in_graph(make("lstm", masked=True, return_sequences=True)), backend)
    numbers = np.where(MASK, np.random.default_rng(0).uniform(-2, -1, MASK.shape), -0.0)
    y = model.predict([data(), MASK])
    np.testing.assert_array_equal(model.predict([data(), numbers]), y)


def test_rows_and_threads_do_not_matter(backend: str) -> None:
    layers = make("lstm", return_sequences=True), GRU(UNITS, 5, return_sequences=True)
    model = Model(make_chain(*layers), backend)
    y, state = model.predict(data(), mask=MASK, return_state=True)
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"threads": 2}):
        z, after = model.predict(data(), mask=MASK, return_state=True, **options)
        agree(z, y, UNITS + 5 + 1, backend)
        for entry, arrays in state.items():
            for name, array in arrays.items():
                agree(after[entry][name], array, UNITS + 5 + 1, backend)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_of_any_length_are_those_of_each_alone(
    kind: str, backwards: bool, backend: str
) -> None:
    """Kernels sort rows by length, and blocks of rows end with the longest of theirs."""
    layer = make(kind, return_sequences=True, go_backwards=backwards)
    rng = np.random.default_rng(3)
    rows, steps = 150, 40
    model = Model(make_chain(layer), backend)
    x = rng.normal(size=(rows, steps, FEATURES)).astype("float32")
    begins, ends = rng.integers(0, steps, rows), rng.integers(0, steps + 1, rows)
    mask = (np.arange(steps) >= begins[:, None]) & (np.arange(steps) < ends[:, None])
    mask[::3] = np.arange(steps) < ends[::3, None]  # padding behind
    mask[1::7] &= rng.random((len(mask[1::7]), steps)) < 0.7  # holes
    y, state = model.predict(x, mask=mask, return_state=True)
    for r in range(0, rows, 13):
        one, after = model.predict(x[r : r + 1], mask=mask[r : r + 1], return_state=True)
        agree(y[r : r + 1], one, FEATURES + UNITS + 1, backend)
        for entry, arrays in after.items():
            for name, array in arrays.items():
                agree(state[entry][name][r : r + 1], array, FEATURES + UNITS + 1, backend)


def test_a_mask_holds_for_every_layer(backend: str) -> None:
    first, second = make("lstm", return_sequences=True), GRU(UNITS, UNITS, reset_after=False)
    spec = make_chain(first, Dense(UNITS, UNITS), second, dtype="float64")
    one, two, three = (layer.weights for layer in spec.layers)
    y, _ = expected("lstm", one, data(), MASK)
    y, _ = expected("gru_before", three, oracle.dense(two, y), MASK)
    ours = Model(spec, backend).predict(data(), mask=MASK)
    np.testing.assert_allclose(ours, y[:, -1], atol=1e-14, rtol=0)


def test_traces(backend: str) -> None:
    model = Model(make_chain(make("gru_after", return_sequences=True), dtype="float64"), backend)
    y, state = model.predict(data(), mask=MASK, return_state=True)
    traced = model.trace(data(), mask=MASK)["layer_0"]
    np.testing.assert_allclose(traced.h[MASK], y[MASK], atol=1e-14, rtol=0)
    np.testing.assert_allclose(state["layer_0"]["h"], y[:, -1], atol=1e-14, rtol=0)


def test_files_keep_masks(backend: str, tmp_path: Any) -> None:
    pair = Bidirectional(
        make("rnn", masked=True), make("rnn", masked=True, go_backwards=True), "sum"
    )
    for number, layer in enumerate((make("lstm", masked=True), pair)):
        model = Model(in_graph(layer), backend)
        model.save(tmp_path / f"{number}.npz")
        again = load(tmp_path / f"{number}.npz", backend)
        y = model.predict([data(), MASK])
        np.testing.assert_array_equal(again.predict([data(), MASK]), y)
        assert np.abs(y - model.predict([data(), np.ones_like(MASK)]))[1:].max() > 1e-3


# Where masks come from.


def made(layer: Operation, shape: tuple[Any, ...], dtype: str = "float32") -> ModelSpec:
    spec = make_layer("layer_0", layer, np.random.default_rng(0), dtype)
    edge = Edge.call(spec, "x")
    return ModelSpec(layers=(spec,), edges=(edge,), inputs=(TensorSpec("x", shape),), outputs=edge.outputs, dtype=dtype)  # fmt: skip


@pytest.mark.parametrize("value", [0.0, -4.2e6, 0.1, 1e300])
def test_masking(value: float, backend: str) -> None:
    x = data().astype("float32")
    with np.errstate(over="ignore"):
        held = np.float32(value)
    x[~MASK] = held
    x[0, 0] = np.nan
    x[0, 1, :2] = held
    x[0, 2, 1] = np.inf
    y = Model(made(Masking(value), ("batch", "steps", FEATURES)), backend).predict(x)
    np.testing.assert_array_equal(y["layer_0/mask"], MASK)
    np.testing.assert_array_equal(y["layer_0"], np.where(MASK[..., None], x, 0))


def test_embedding(backend: str) -> None:
    spec = made(Embedding(9, 5, mask_zero=True), ("batch", "steps"))
    ids = np.random.default_rng(0).integers(1, 9, MASK.shape) * MASK
    y = Model(spec, backend).predict(ids)
    np.testing.assert_array_equal(y["layer_0/mask"], MASK)
    np.testing.assert_array_equal(y["layer_0"], spec.layers[0].weights["embeddings"][ids])
    assert y["layer_0"][~MASK].all()  # the row of id 0 is looked up all the same


# What does not fit.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": MASK[:, :-1]}, r"mask: expected booleans \(7, 6\), got bool of shape \(7, 5\)"),
        ({"mask": MASK[:-1]}, r"mask: expected booleans \(7, 6\), got bool of shape \(6, 6\)"),
        ({"mask": MASK[..., None]}, r"mask: expected booleans .* got bool of shape \(7, 6, 1\)"),
        ({"mask": MASK.T}, r"mask: expected booleans .* got bool of shape \(6, 7\)"),
        ({"mask": MASK.astype(int)}, r"mask: expected booleans .* got int64 of shape \(7, 6\)"),
        ({"mask": MASK.astype("f4")}, r"mask: expected booleans .* got float32"),
        ({"mask": True}, r"mask: expected booleans .* got bool of shape \(\)"),
        ({"mask": "111"}, r"mask: expected booleans"),
        ({"mask": MASK, "lengths": [6] * 7}, "mask: expected it or lengths, not both"),
        ({"lengths": [0] * 7}, "lengths: expected 1 to 6, got 0 to 0"),
    ],
)
def test_masks_that_do_not_fit(given: dict[str, Any], message: str, backend: str) -> None:
    model = Model(make_chain(make("gru_after")), backend)
    with pytest.raises(ShapeError, match=message):
        model.predict(data(), **given)
    with pytest.raises(ShapeError, match=message):
        model.trace(data(), **given)


def test_models_that_take_no_mask(backend: str) -> None:
    dense = Model(make_chain(Dense(FEATURES, 2)), backend)
    conv = Model(make_chain(Conv1D(FEATURES, FEATURES, 2), make("lstm")), backend)
    own = Model(in_graph(make("lstm", masked=True), "float32"), backend)
    for given in ({"mask": MASK}, {"lengths": [6] * 7}):
        (what,) = given
        with pytest.raises(ShapeError, match=f"{what}: the model has no recurrent layer"):
            dense.predict(data(), **given)
        with pytest.raises(ShapeError, match=f"{what}: layer_1 reads .* whose steps are not those"):
            conv.predict(data(), **given)
        with pytest.raises(ShapeError, match=f"{what}: layer_0 has a mask that the model makes"):
            own.predict([data(), MASK], **given)


def test_layers_say_which_mask_they_need() -> None:
    layer = make("lstm", masked=True)
    x, mask = ("batch", "steps", FEATURES), ("batch", "steps")
    assert layer.output_shapes([x, mask]) == (("batch", UNITS),)
    for wrong in (("batch", "other"), ("steps", "batch"), ("batch", "steps", 1), ("batch", 6)):
        with pytest.raises(FormatError, match=r"expected a mask \(batch, steps\), got"):
            layer.output_shapes([x, wrong])
    with pytest.raises(FormatError, match=r"expected a mask \(batch, steps\), got none"):
        layer.output_shapes([x])
    states = [("batch", UNITS)] * 2
    assert layer.output_shapes([x, *states, mask]) == (("batch", UNITS),)
    with pytest.raises(FormatError, match="expected a mask"):
        layer.output_shapes([x, *states])
    with pytest.raises(FormatError, match="masked: forward has True, backward False"):
        Bidirectional(make("rnn", masked=True), make("rnn", go_backwards=True))
    with pytest.raises(FormatError, match="at least 2 axes"):
        Masking().output_shapes([("batch",)])
