"""Model: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from builders import make_chain, make_layer

import npylstm
from npylstm import Model, ModelSpec, NpylstmError, ShapeError, StateError
from npylstm.activations import Activation
from npylstm.kernels.library import Unavailable
from npylstm.native import shipped
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.shaping import Reshape, Stack, Transpose
from npylstm.runtime import segment
from npylstm.runtime.program_buffers import ProgramBuffers
from npylstm.spec import Edge, TensorSpec

RNG = np.random.default_rng(0)


def stack(**options: Any) -> ModelSpec:
    return make_chain(LSTM(3, 20, return_sequences=True), LSTM(20, 9), Dense(9, 2), **options)


def test_numpy_and_numba_agree() -> None:
    layers = [
        LSTM(3, 4, return_sequences=True), Transpose((0, 2, 1)), Reshape(((0, 0), 3, 8)),
        ActivationLayer(Activation.of("relu", negative_slope=0.2)), Reshape(((0, 0), -1)), Stack(1, 5),
        Identity(), LSTM(24, 3, return_sequences=True, go_backwards=True), Dense(3, 2),
        ActivationLayer(Activation("softmax")), ActivationLayer(Activation("log_softmax")),
    ]  # fmt: skip
    for dtype, atol in (("float32", 1e-6), ("float64", 1e-14)):
        spec = make_chain(*layers, shape=("batch", 6, 3), dtype=dtype)
        x = RNG.normal(size=(4, 6, 3))
        a, b = (Model(spec, name).predict(x) for name in BACKENDS)
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)
        assert a.dtype == b.dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_native_bits_do_not_depend_on_batch_size_or_threads(dtype: str) -> None:
    model = Model(stack(dtype=dtype), COMPILED)
    x = RNG.normal(size=(23, 17, 3))
    whole = model.predict(x)
    for options in ({"batch_size": 1}, {"batch_size": 5}, {"threads": 2}, {"threads": 3}):
        np.testing.assert_array_equal(model.predict(x, **options), whole)
    for row in (0, 3, 22):
        np.testing.assert_array_equal(model.predict(x[row : row + 1]), whole[row : row + 1])


def test_native_bits_do_not_depend_on_chunking() -> None:
    model = Model(make_chain(LSTM(3, 20, return_sequences=True), LSTM(20, 9, return_sequences=True)), COMPILED)  # fmt: skip
    x = RNG.normal(size=(3, 61, 3))
    whole, final = model.predict(x, return_state=True)
    for size in (1, 2, 7, 16, 17, 60):
        parts, state = [], None
        for start in range(0, 61, size):
            y, state = model.predict(x[:, start : start + size], state=state, return_state=True)
            parts.append(y)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
        assert state is not None
        np.testing.assert_array_equal(state["layer_1"]["c"], final["layer_1"]["c"])


def test_batch_size_and_threads_carry_the_state(backend: str) -> None:
    model = Model(stack(), backend)
    x = RNG.normal(size=(10, 4, 3))
    _, state = model.predict(x, return_state=True)
    whole, after = model.predict(x, state=state, return_state=True)
    parts, after_parts = model.predict(
        x, state=state, return_state=True, batch_size=3, threads=2, progress=True
    )
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(after_parts["layer_0"]["c"], after["layer_0"]["c"], atol=1e-6)


def test_time_major_batches_are_cut_along_the_second_axis(backend: str) -> None:
    spec = make_chain(
        LSTM(3, 5, return_sequences=True, time_major=True), shape=("steps", "batch", 3)
    )
    model = Model(spec, backend)
    x = RNG.normal(size=(6, 7, 3))
    np.testing.assert_allclose(model.predict(x, batch_size=2), model.predict(x), atol=1e-6)


def test_an_empty_batch_gives_an_empty_result(backend: str) -> None:
    assert Model(stack(), backend).predict(np.zeros((0, 4, 3))).shape == (0, 2)


class _Emptied(dict[Any, Any]):
    """Calls that are remembered, and that another thread forgets as soon as one was looked for."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.clear()
        return found


def test_calls_are_forgotten_while_another_thread_looks_for_them() -> None:
    model = Model(stack(), COMPILED)
    x = RNG.normal(size=(2, 17, 3)).astype(np.float32)
    expected = model.predict(x)
    model._prepared_calls = _Emptied(model._prepared_calls)
    np.testing.assert_array_equal(model.predict(x.tolist()), expected)


def test_many_shapes_take_the_short_way() -> None:
    model = Model(stack(), COMPILED)
    for rows in range(1, 200):
        model.predict(np.zeros((rows, 17, 3)))
        assert (rows, 17, 3) in {shape for shape, _ in model._prepared_calls}
    assert len(model._prepared_calls) <= 64


def test_many_threads_share_one_model(backend: str) -> None:
    model = Model(stack(), backend)
    inputs = [RNG.normal(size=(k + 1, 9, 3)) for k in range(8)]
    expected = [model.predict(x) for x in inputs]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(20):
            if not np.array_equal(model.predict(inputs[k]), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_inputs_and_states_are_never_written_to(backend: str) -> None:
    model = Model(stack(), backend)
    x = RNG.normal(size=(2, 4, 3)).astype("float32")
    _, state = model.predict(x, return_state=True)
    kept = x.copy(), {k: {n: a.copy() for n, a in v.items()} for k, v in state.items()}
    model.predict(x, state=state)
    np.testing.assert_array_equal(x, kept[0])
    for layer, entries in state.items():
        for name, array in entries.items():
            np.testing.assert_array_equal(array, kept[1][layer][name])


@pytest.mark.parametrize("kind", [int, np.int32, bool, np.float16, np.float64])
def test_any_real_numbers_will_do(kind: type, backend: str) -> None:
    x = np.ones((2, 4, 3), kind)
    y = Model(stack(), backend).predict(x)
    np.testing.assert_array_equal(y, Model(stack(), backend).predict(np.ones((2, 4, 3))))


def test_lists_and_foreign_memory_layouts_will_do(backend: str) -> None:
    model = Model(stack(), backend)
    x = RNG.normal(size=(2, 4, 3))
    y = model.predict(x)
    np.testing.assert_array_equal(model.predict(x.tolist()), y)
    np.testing.assert_array_equal(model.predict(np.asfortranarray(x)), y)
    np.testing.assert_array_equal(model.predict(x.astype(">f8")), y)
    np.testing.assert_array_equal(model.predict({"x": x}), y)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((4, 3)),
            r"^x: expected \(batch, steps, 3\), got \(4, 3\); for one sequence give x\[None\]$",
        ),
        (np.zeros((2, 4, 5)), r"^x: expected \(batch, steps, 3\), got \(2, 4, 5\)$"),
        (np.zeros((2, 0, 3)), r"^x: expected \(batch, steps, 3\), got \(2, 0, 3\)$"),
        (np.zeros((4, 5)), r"^x: expected \(batch, steps, 3\), got \(4, 5\)$"),
        (np.zeros((0, 3)), r"^x: expected \(batch, steps, 3\), got \(0, 3\)$"),
        (np.zeros((2, 4, 3), complex), "expected real numbers, got complex128"),
        (np.full((2, 4, 3), "a"), "expected real numbers, got <U1"),
        ([[[1, 2, 3]], [[1, 2]]], "^x: expected an array, got ragged list"),
        (None, "expected real numbers, got object"),
        (3.0, r"^x: expected \(batch, steps, 3\), got \(\)$"),
        ({"y": np.zeros((2, 4, 3))}, r"inputs: expected \['x'\], got \['y'\]"),
    ],
)
def test_wrong_inputs_are_named(x: Any, message: str, backend: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Model(stack(), backend).predict(x)


def test_fixed_steps_are_kept(backend: str) -> None:
    model = Model(make_chain(LSTM(3, 2), shape=("batch", 5, 3)), backend)
    with pytest.raises(ShapeError, match=r"x: expected \(batch, 5, 3\), got \(1, 6, 3\)"):
        model.predict(np.zeros((1, 6, 3)))


def good_state(batch: int = 2) -> dict[str, dict[str, Any]]:
    return {
        "layer_0": {"h": np.zeros((batch, 20)), "c": np.zeros((batch, 20))},
        "layer_1": {"h": np.zeros((batch, 9)), "c": np.zeros((batch, 9))},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer_1"), r"expected layers \['layer_0', 'layer_1'\], got \['layer_0'\]"),
        (lambda s: s.update(other={}), "expected layers .* got .*other"),
        (lambda s: s["layer_0"].pop("c"), r"state of layer_0: expected \['c', 'h'\], got \['h'\]"),
        (
            lambda s: s["layer_1"].update(h=np.zeros((2, 20))),
            r"state layer_1/h: expected shape \(2, 9\), got \(2, 20\)",
        ),
        (lambda s: s["layer_1"].update(h=np.zeros((3, 9))), r"expected shape \(2, 9\), got \(3, 9\)"),
        (lambda s: s["layer_1"].update(h="no"), "state layer_1/h: expected real numbers"),
        (lambda s: s.update(layer_0=3), "state of layer_0: expected .* got int"),
    ],
)  # fmt: skip
def test_wrong_states_are_named(change: Any, message: str, backend: str) -> None:
    state = good_state()
    change(state)
    with pytest.raises(StateError, match=message):
        Model(stack(), backend).predict(np.zeros((2, 4, 3)), state=state)


@pytest.mark.parametrize("name", ["batch_size", "threads"])
def test_counts_are_positive(name: str) -> None:
    with pytest.raises(NpylstmError, match=f"{name}: expected a positive integer, got 0"):
        Model(stack(), "numpy").predict(np.zeros((2, 4, 3)), **{name: 0})


def two_inputs() -> ModelSpec:
    """A graph with two inputs and two outputs."""
    rng = np.random.default_rng(0)
    a, b = make_layer("a", LSTM(3, 4), rng), make_layer("b", Dense(2, 5), rng)
    return ModelSpec(
        layers=(a, b), edges=(Edge.call(a, "x"), Edge.call(b, "v")),
        inputs=(TensorSpec("x", ("batch", "steps", 3)), TensorSpec("v", ("batch", 2))),
        outputs=("b", "a"),
    )  # fmt: skip


def test_several_inputs_and_outputs(backend: str) -> None:
    model = Model(two_inputs(), backend)
    x, v = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 2))
    by_list, by_name = model.predict([x, v]), model.predict({"v": v, "x": x})
    assert list(by_list) == ["b", "a"]
    assert by_list["b"].shape == (2, 5)
    np.testing.assert_array_equal(by_list["a"], by_name["a"])
    parts = model.predict([x, v], batch_size=1)
    np.testing.assert_allclose(parts["b"], by_list["b"], atol=1e-6)
    with pytest.raises(ShapeError, match=r"expected 2 arrays for \['x', 'v'\], got ndarray"):
        model.predict(x)
    with pytest.raises(ShapeError, match=r"batch is 2 in x\)"):
        model.predict([x, v[:1]])


def test_trace_shows_what_predict_computes(backend: str) -> None:
    for backwards in (False, True):
        spec = make_chain(LSTM(3, 4, return_sequences=True, go_backwards=backwards), LSTM(4, 2))
        model = Model(spec, backend)
        x = RNG.normal(size=(2, 5, 3))
        gates = model.trace(x)
        assert list(gates) == ["layer_0", "layer_1"]
        first = gates["layer_0"]
        assert first.i.shape == (2, 5, 4)
        np.testing.assert_allclose(
            first.c[:, 2],
            first.f[:, 2] * first.c[:, 3 if backwards else 1] + first.i[:, 2] * first.c_tilde[:, 2],
            atol=1e-6,
        )
        np.testing.assert_allclose(first.h, first.o * np.tanh(first.c), atol=1e-6)
        np.testing.assert_allclose(gates["layer_1"].h[:, -1], model.predict(x), atol=1e-6)


def test_trace_begins_with_a_state() -> None:
    model = Model(stack(), "numpy")
    x = RNG.normal(size=(2, 5, 3))
    whole = model.trace(x)["layer_1"].h
    _, state = model.predict(x[:, :2], return_state=True)
    np.testing.assert_allclose(
        model.trace(x[:, 2:], state=state)["layer_1"].h, whole[:, 2:], atol=1e-6
    )


def test_astype(backend: str) -> None:
    model = Model(stack(), backend)
    wide = model.astype("float64")
    assert wide.backend == backend
    x = RNG.normal(size=(2, 4, 3))
    assert wide.predict(x).dtype == np.float64
    np.testing.assert_allclose(wide.predict(x), model.predict(x), atol=1e-6)
    with pytest.raises(npylstm.FormatError, match="dtype: expected one of float32, float64"):
        model.astype("float16")


def test_summary_names_everything() -> None:
    model = Model(stack(name="stack"), "numpy")
    text = model.summary()
    assert str(text) == repr(text)
    assert "stack: 3,020 parameters, float32, numpy back end" in text
    for word in ("layer_0", "lstm", "(batch, steps, 20)", "return_sequences", "dense"):
        assert word in text


def test_repr_is_short() -> None:
    assert repr(Model(stack(), "numpy")) == (
        "<npylstm.Model 'model': x (batch, steps, 3) -> layer_2 (batch, 2), numpy>"
    )


def test_backend_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPYLSTM_BACKEND", raising=False)
    assert Model(stack()).backend == COMPILED
    monkeypatch.setenv("NPYLSTM_BACKEND", "numpy")
    assert Model(stack()).backend == "numpy"
    assert Model(stack(), COMPILED).backend == COMPILED
    monkeypatch.setenv("NPYLSTM_BACKEND", "fortran")
    with pytest.raises(
        NpylstmError, match="NPYLSTM_BACKEND=fortran: expected one of auto, native, numba, numpy"
    ):
        Model(stack())
    with pytest.raises(NpylstmError, match="backend 'c'"):
        Model(stack(), "c")


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPYLSTM_BACKEND", raising=False)
    monkeypatch.setattr("npylstm.runtime.engines.find_spec", lambda name: None)
    monkeypatch.setattr(shipped, "shipped_library", lambda: Unavailable("not here"))
    assert Model(stack()).backend == "numpy"
    with pytest.raises(NpylstmError, match="backend 'native': not here"):
        Model(stack(), "native")
    with pytest.raises(NpylstmError, match=r"Numba is not installed; pip install 'npylstm\[jit\]'"):
        Model(stack(), "numba")


def test_outputs_are_not_the_callers_memory(backend: str) -> None:
    model = Model(make_chain(Identity(), Reshape(((0, 0), -1)), shape=("batch", 4, 3)), backend)
    x = np.ones((2, 4, 3), np.float32)
    y = model.predict(x)
    y += 1
    assert (x == 1).all()


def test_large_batches_that_go_through_in_slices_give_the_same_bits() -> None:
    layer = LSTM(1, 320, return_sequences=True)
    model = Model(make_chain(layer, shape=("batch", "steps", 1)), COMPILED)
    x = np.random.default_rng(6).normal(size=(70, 200, 1)).astype(np.float32)
    whole, _ = model.predict(x, return_state=True)
    sliced = model.predict(x)
    np.testing.assert_array_equal(sliced, whole)
    assert not np.may_share_memory(sliced, model.predict(x))


def test_buffers_are_kept_from_call_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sizes take turns; of many sizes only the latest stay."""
    made: list[weakref.ref[ProgramBuffers]] = []
    lay_out = ProgramBuffers.__init__

    def count(self: ProgramBuffers, *arguments: Any) -> None:
        made.append(weakref.ref(self))
        lay_out(self, *arguments)

    monkeypatch.setattr(ProgramBuffers, "__init__", count)
    model = Model(make_chain(LSTM(3, 4), shape=("batch", "steps", 3)), COMPILED)
    sizes = {"small": (2, 9), "large": (500, 300), "larger": (30, 9000), "halves": (401, 300)}
    for _ in range(3):
        for name, size in sizes.items():
            x = np.ones((*size, 3), np.float32)
            np.testing.assert_array_equal(model.predict(x, threads=2 if name == "halves" else 1)[0],
                                          model.predict(x[:1])[0])  # fmt: skip
    assert len(made) <= 2 * len(sizes) + 1
    for rows in range(500, 540):
        model.predict(np.ones((rows, 300, 3), np.float32))
    numbers = sum(buffers.work.size for buffers in (ref() for ref in made) if buffers is not None)
    assert numbers <= segment._KEPT_SIZE + 10 * segment._SMALL_SIZE


def test_a_mapping_with_an_unknown_name_is_refused_after_a_good_one(backend: str) -> None:
    """The short way of calls whose sizes are known takes no more than the long one."""
    model = Model(make_chain(Dense(3, 2), shape=("batch", 3)), backend)
    x = np.ones((2, 3), "float32")
    name = model.inputs[0].name
    model.predict({name: x})
    with pytest.raises(ShapeError, match="inputs: expected"):
        model.predict({name: x, "other": x})
