"""Specs, models, sessions and pools as Python values: equal, pickled, copied, shown in one line."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain, make_layer
from operations.cases import CASES

import npylstm
from npylstm import Model, ModelSpec, NpylstmError, UnsupportedError
from npylstm.activations import Activation
from npylstm.ops import OPERATIONS
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.external import External
from npylstm.ops.indexing import Flip, Pad, Repeat, Select, SizeOf, Slice
from npylstm.ops.masking import MaskedMean, MaskedMerge, MaskedSoftmax, Masking
from npylstm.ops.normalization import BatchNormalization, LayerNormalization, UnitNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity, PReLU, Rescaling
from npylstm.ops.products import Dot, MatMul
from npylstm.ops.shaping import Concatenate, Expand, Full, Reshape, Stack, Transpose
from npylstm.ops.time_distributed import TimeDistributed
from npylstm.spec import Case, LayerSpec, TensorSpec

RNN = SimpleRNN(3, 2)
LAYERS = [
    LSTM(3, 4, Activation.of("elu", alpha=0.5), projection=2), GRU(3, 4, reset_after=False), RNN,
    Bidirectional(RNN, replace(RNN, go_backwards=True)), Dense(3, 2), Embedding(5, 2, True),
    Masking(-1.0), Conv1D(4, 2, 3, groups=2), BatchNormalization(3, -1, 1e-3),
    LayerNormalization((3,), 1e-5), UnitNormalization((1, -1)), PReLU((3,)), Constant((2, 3)),
    ActivationLayer(Activation.of("softmax", axis=1)), Identity(), Rescaling(2.0, 1.0),
    ActivationLayer(Activation.of("sin")), Arithmetic("subtract", 1.0, True), Reduce("mean", (1,)), MatMul(),
    Dot((1, 2)), Attention("concat", scaled=True), MultiHeadAttention(3, 3, 3, 2, 2, 2, 4),
    MaskedMean(), MaskedMerge("maximum", (0,)), MaskedSoftmax(), Pool1D("max", 2, 2),
    TimeDistributed(Dense(3, 2)), External("f", ((0, 0), 2), ((2, 3),)), Reshape(((0, 0), -1)), Reshape(((0, 0), -1, 2)),
    Transpose((0, 2, 1)), Stack(1, 3), Select(1, -1), Slice(1, 0, None, 2), SizeOf(1),
    Transpose((1, 0, 2)), Flip((1,)), Reshape(((0, 0), -1)), Expand((4, (0, 0))), Concatenate(2),
    Stack(1), Full(((0, 0), 2), 0.5), Repeat(1, 2), Pad(1, 1, 0),
    *{c.layer.kind: c.layer for c in CASES if c.layer.function is None}.values(),
]  # fmt: skip

ROUND_TRIPS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
X = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")


def twice(x: Any) -> Any:
    return 2 * x


def one_line(value: object) -> bool:
    return repr(value).isprintable() and len(repr(value)) <= 200


def recorded(**others: Any) -> ModelSpec:
    """A spec in which everything is set, nan among its cases."""
    spec = make_chain(
        LSTM(3, 4, return_sequences=True), Dense(4, 2), name="recorded",
        provenance={"framework": "Keras", "decisions": ["a", "b"], "sizes": (1, 2)}, **others,
    )  # fmt: skip
    state = {"layer_0": {"h": np.ones((2, 4), spec.dtype), "c": np.ones((2, 4), spec.dtype)}}
    x = X.astype(spec.dtype)
    y = Model(spec, "numpy").predict(x, state=state)
    broken = np.full_like(x, np.nan)
    cases = (
        Case({"x": x}, {"layer_1": y}, state, purpose="state"),
        Case({"x": broken}, {"layer_1": np.full_like(y, np.nan)}, lengths=np.array([6, 2])),
    )
    return spec.with_cases(cases)


def test_every_kind_of_layer_makes_the_round_trip() -> None:
    rng = np.random.default_rng(0)
    specs = [make_layer(f"layer {k}", layer, rng) for k, layer in enumerate(LAYERS)]
    assert {spec.kind for spec in specs} == set(OPERATIONS)
    for spec in specs:
        for again in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
            assert again == spec
            assert hash(again) == hash(spec)
            assert not any(array.flags.writeable for array in again.weights.values())
        assert pickle.loads(pickle.dumps(spec.layer)) == spec.layer
        assert one_line(spec)
        assert spec != LayerSpec("other", spec.layer, spec.weights)
        for key, array in spec.weights.items():
            moved = array.copy()
            moved.flat[-1] = np.nextafter(moved.flat[-1], 9)
            assert spec != LayerSpec(spec.name, spec.layer, {**spec.weights, key: moved})
    assert len({repr(spec) for spec in specs}) == len(specs) == len({*specs})


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_specs_make_the_round_trip(way: str) -> None:
    spec = recorded()
    again = ROUND_TRIPS[way](spec)
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.shapes == spec.shapes
    assert again.to_json() == spec.to_json()
    assert one_line(spec)
    assert all(map(one_line, spec.cases))
    assert again["layer_0"].weights["U_f"].tobytes() == spec["layer_0"].weights["U_f"].tobytes()


def test_a_spec_is_equal_to_its_file(tmp_path: Any) -> None:
    """Provenance is what JSON makes of it: a tuple is a list."""
    npylstm.save(recorded(), tmp_path / "m.npz")
    assert npylstm.load(tmp_path / "m.npz", "numpy").spec == recorded()


def changed_case(spec: ModelSpec, number: int, **changes: Any) -> ModelSpec:
    cases = list(spec.cases)
    cases[number] = replace(cases[number], **changes)
    return spec.with_cases(cases)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, name="other"),
        lambda s: replace(s, provenance={**s.provenance, "framework": "PyTorch"}),
        lambda s: replace(s, outputs=("layer_1", "layer_0"), cases=s.cases[:0]),
        lambda s: replace(s, inputs=(TensorSpec("x", ("batch", 6, 3)),)),
        lambda s: replace(s, inputs=(TensorSpec("x", s.inputs[0].shape, integer=True),)),
        lambda s: s.with_cases(s.cases[::-1]),
        lambda s: s.with_cases(s.cases[:1]),
        lambda s: recorded(seed=1),
        lambda s: recorded(dtype="float64"),
        lambda s: changed_case(s, 0, purpose="other"),
        lambda s: changed_case(s, 0, state={}),
        lambda s: changed_case(s, 0, lengths=np.array([6, 2])),
        lambda s: changed_case(s, 1, lengths=np.array([6, 3])),
        lambda s: changed_case(s, 1, lengths=np.array([6, 2], np.int32)),
        lambda s: changed_case(s, 1, inputs={"x": np.where(X > 0, s.cases[1].inputs["x"], X)}),
        lambda s: "another kind of thing",
    ],
)
def test_what_differs_is_unequal(change: Any) -> None:
    spec = recorded()
    assert (spec == change(spec)) is False
    assert (spec == recorded()) is True


def test_whole_is_the_former_name_of_integer() -> None:
    assert TensorSpec("ids", ("batch", "steps"), integer=True).whole
    assert not TensorSpec("x", ("batch", "steps")).whole


def test_long_and_odd_names_are_shown_in_one_line() -> None:
    spec = make_chain(LSTM(3, 4), name="name\nof\x1b two lines" + "!" * 300)
    inputs = (TensorSpec("x" * 300, ("batch", "steps", 3)),)
    edges = (replace(spec.edges[0], inputs=(inputs[0].name,)),)
    model = Model(replace(spec, inputs=inputs, edges=edges), "numpy")
    layer = make_layer("y" * 300 + "\x85", Dense(3, 2), np.random.default_rng(0))
    case = Case({"x" * 300: X}, {"y\n": X}, purpose="z" * 300)
    for value in (model, model.spec, model.session(2), model.pool(3), layer, case):
        assert one_line(value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_models_make_the_round_trip(
    way: str, dtype: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPYLSTM_BACKEND", "numpy" if backend != "numpy" else COMPILED)
    model = Model(recorded(dtype=dtype), backend)
    again = ROUND_TRIPS[way](model)
    assert again.backend == backend
    assert again.spec == model.spec
    assert repr(again) == repr(model)
    x = X.astype(dtype)
    np.testing.assert_array_equal(again(x), model(x), strict=True)
    y, state = again(x, return_state=True)
    np.testing.assert_array_equal(y, model.predict(x), strict=True)
    np.testing.assert_array_equal(again.predict(x, state=state), model(x, state=state))
    free = ROUND_TRIPS[way](
        Model(make_chain(LSTM(3, 4), shape=("batch", 5, 3)), backend).with_free_steps()
    )
    assert free.predict(X).shape == (2, 4)


def test_a_function_is_pickled_where_python_can() -> None:
    spec = make_chain(External("f", ((0, 0), (0, 1), 3)), LSTM(3, 4))
    model = Model(spec, "numpy", {"f": twice})
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again(X), model(X))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(Model(spec, "numpy", {"f": lambda x: x}))
    unbound = pickle.loads(pickle.dumps(spec))
    assert unbound == spec == model.spec
    with pytest.raises(UnsupportedError, match="custom="):
        Model(unbound, "numpy")


def test_a_model_is_sent_to_another_process() -> None:
    model = Model(recorded(), "numpy")
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        first, second = workers.map(model.predict, [X[:1], X[1:]])
    np.testing.assert_array_equal(first, model(X[:1]))
    np.testing.assert_array_equal(second, model(X[1:]))


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_sessions_take_their_state_along(way: str, backend: str) -> None:
    session = Model(recorded(), backend).session(2, nan="raise")
    session.push(X[:, :2])
    again = ROUND_TRIPS[way](session)
    expected = session.push(X[:, 2:])
    np.testing.assert_array_equal(again.push(X[:, 2:]), expected, strict=True)
    again.reset()
    assert session.state["layer_0"]["h"].any()
    assert (again.batch_size, again.model.backend) == (2, backend)
    with pytest.raises(npylstm.ShapeError, match="nan"):
        again.step(np.full((2, 3), np.nan))
    if way != "pickle":  # the model is shared, as it never changes
        assert npylstm.Session.join([session, again]).batch_size == 4


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_pools_take_their_keys_along(way: str, backend: str) -> None:
    pool = Model(recorded(), backend).pool(4, nan="raise")
    pool.add(["c", ("a", 1), 2.5])
    pool.remove("c")
    pool.step([("a", 1), 2.5], X[:, 0])
    again = ROUND_TRIPS[way](pool)
    assert again.keys == pool.keys == [("a", 1), 2.5]
    assert (again.capacity, len(again), ("a", 1) in again) == (4, 2, True)
    keys = [2.5, ("a", 1)]
    np.testing.assert_array_equal(again.step(keys, X[:, 1]), pool.step(keys, X[:, 1]), strict=True)
    again.add("d")
    assert "d" not in pool
    with pytest.raises(npylstm.ShapeError, match="nan"):
        again.step(["d"], np.full((1, 3), np.nan))
    with pytest.raises(NpylstmError, match="room for 1 more of 4"):
        again.add(["e", "f"])
