"""Array operations: NumPy's own results, shapes with symbols, and samples that stay apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import make_layer

from npylstm import FormatError, Model, ModelSpec, ShapeError
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.cells import LSTM
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.external import External
from npylstm.ops.indexing import Flip, Pad, Repeat, Select, SizeOf, Slice
from npylstm.ops.masking import MaskedMean, MaskedSoftmax, Masking
from npylstm.ops.normalization import UnitNormalization
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.products import Dot, MatMul
from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Concatenate, Expand, Full, Reshape, Stack, Transpose
from npylstm.spec import Edge, TensorSpec

RNG = np.random.default_rng(0)


def softmax(axis: int, name: str = "softmax") -> ActivationLayer:
    return ActivationLayer(Activation.of(name, axis=axis))


def softmax_of(x: Any, axis: int) -> Any:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def model_of(layer: Any, *shapes: Shape, backend: str = "numpy", dtype: str = "float64") -> Model:
    """One layer that reads inputs a, b, c."""
    inputs = tuple(TensorSpec("abc"[k], shape) for k, shape in enumerate(shapes))
    made = make_layer("op", layer, np.random.default_rng(1), dtype)
    edge = Edge.call(made, *(t.name for t in inputs[: None if shapes else 0]))
    return Model(ModelSpec((made,), (edge,), inputs, edge.outputs, dtype=dtype), backend)


SEQUENCE: Shape = ("batch", "steps", 3)
MAJOR: Shape = ("steps", "batch", 3)
A = RNG.normal(size=(2, 5, 3))
B = RNG.normal(size=(2, 5, 3))


@pytest.mark.parametrize(
    ("layer", "shapes", "arrays", "expected", "shape"),
    [
        (Select(1, -1), [SEQUENCE], [A], A[:, -1], ("batch", 3)),
        (Select(2, 1), [SEQUENCE], [A], A[:, :, 1], ("batch", "steps")),
        (Select(0, 1), [MAJOR], [A], A[1], ("batch", 3)),
        (Slice(1, 1, -1, 2), [SEQUENCE], [A], A[:, 1:-1:2], ("batch", "steps[1:-1:2]", 3)),
        (Slice(2, -2), [SEQUENCE], [A], A[:, :, -2:], ("batch", "steps", 2)),
        (Transpose((1, 0, 2)), [SEQUENCE], [A], A.transpose(1, 0, 2), ("steps", "batch", 3)),
        (Flip((1, 2)), [SEQUENCE], [A], A[:, ::-1, ::-1], SEQUENCE),
        (Reshape((-1, 3)), [SEQUENCE], [A], A.reshape(-1, 3), ("batch*steps", 3)),
        (Reshape(((0, 0), -1)), [SEQUENCE], [A], A.reshape(2, -1), ("batch", "steps*3")),
        (Reshape(((0, 0), (0, 1), 3, 1)), [SEQUENCE], [A], A[..., None], ("batch", "steps", 3, 1)),
        (Reshape((1, (0, 0), (0, 1), 3)), [SEQUENCE], [A], A[None], (1, "batch", "steps", 3)),
        (Reshape(((1, 0), (1, 1), 3)), [("batch*steps", 3), SEQUENCE], None, None, None),
        (Expand((4, (0, 0), 5)), [("batch", 1)], [A[:, 0, :1]],
         np.broadcast_to(A[:, 0, :1], (4, 2, 5)), (4, "batch", 5)),
        (Concatenate(2), [SEQUENCE, SEQUENCE], [A, B], np.concatenate([A, B], 2), ("batch", "steps", 6)),
        (Concatenate(1), [SEQUENCE, SEQUENCE], [A, B], np.concatenate([A, B], 1),
         ("batch", "steps+steps", 3)),
        (Stack(0), [SEQUENCE, SEQUENCE], [A, B], np.stack([A, B]), (2, "batch", "steps", 3)),
        (Stack(3), [SEQUENCE, SEQUENCE], [A, B], np.stack([A, B], 3), ("batch", "steps", 3, 2)),
        (Full(((0, 0), 2), 0.5), [SEQUENCE], [A], np.full((2, 2), 0.5), ("batch", 2)),
        (Arithmetic("add"), [SEQUENCE, SEQUENCE], [A, B], A + B, SEQUENCE),
        (Arithmetic("subtract"), [SEQUENCE, ("batch", 1, 3)], [A, B[:, :1]], A - B[:, :1], SEQUENCE),
        (Arithmetic("multiply", 2.5), [SEQUENCE], [A], A * 2.5, SEQUENCE),
        (Arithmetic("subtract", 1.0, True), [SEQUENCE], [A], 1 - A, SEQUENCE),
        (Arithmetic("divide", 3.0), [SEQUENCE], [A], A / 3, SEQUENCE),
        (Arithmetic("power", 3.0), [SEQUENCE], [A], A**3, SEQUENCE),
        (Arithmetic("maximum", 0.1), [SEQUENCE], [A], np.maximum(A, 0.1), SEQUENCE),
        (Arithmetic("minimum"), [SEQUENCE, SEQUENCE], [A, B], np.minimum(A, B), SEQUENCE),
        (ActivationLayer(Activation.of("abs")), [SEQUENCE], [A], np.abs(A), SEQUENCE),
        (ActivationLayer(Activation.of("rsqrt")), [SEQUENCE], [A**2], 1 / np.abs(A), SEQUENCE),
        (Reduce("mean", (1,)), [SEQUENCE], [A], A.mean(1), ("batch", 3)),
        (Reduce("max", (1, 2), True), [SEQUENCE], [A], A.max((1, 2), keepdims=True), ("batch", 1, 1)),
        (Reduce("min", (0,)), [MAJOR], [A], A.min(0), ("batch", 3)),
        (SizeOf(1), [SEQUENCE], [A], 5.0, ()),
        (Slice(1, -2, size=2), [SEQUENCE], [A], A[:, -2:], ("batch", 2, 3)),
        (Slice(1, 1), [SEQUENCE], [A], A[:, 1:], ("batch", "steps-1", 3)),
        (Reduce("sum", (2,)), [SEQUENCE], [A], A.sum(2), ("batch", "steps")),
        (Reduce("norm", (2,), True), [SEQUENCE], [A], np.linalg.norm(A, axis=2, keepdims=True), ("batch", "steps", 1)),
        (softmax(0), [MAJOR], [A], softmax_of(A, 0), MAJOR),
        (softmax(-3), [MAJOR], [A], softmax_of(A, 0), MAJOR),
        (softmax(1), [SEQUENCE], [A], softmax_of(A, 1), SEQUENCE),
        (softmax(2, "log_softmax"), [MAJOR], [A], np.log(softmax_of(A, 2)), MAJOR),
        (MaskedSoftmax(0), [MAJOR, MAJOR], [A, np.ones_like(A)], softmax_of(A, 0), MAJOR),
        (UnitNormalization((0,)), [MAJOR], [A], A / np.linalg.norm(A, axis=0), MAJOR),
        (Flip((0,)), [MAJOR], [A], A[::-1], MAJOR),
        (Transpose((0, 2, 1)), [MAJOR], [A], A.swapaxes(1, 2), ("steps", 3, "batch")),
        (Concatenate(0), [MAJOR, MAJOR], [A, B], np.concatenate([A, B]), ("steps+steps", "batch", 3)),
        (MatMul(), [SEQUENCE, ("batch", 3, "steps")], [A, B.swapaxes(1, 2)], A @ B.swapaxes(1, 2),
         ("batch", "steps", "steps")),
    ],
)  # fmt: skip
def test_results_and_shapes(
    layer: Any, shapes: Any, arrays: Any, expected: Any, shape: Any, backend: str
) -> None:
    if arrays is None:  # a merged axis is no input of a model: seen apart again below
        assert layer.output_shapes(shapes) == (SEQUENCE,)
        return
    model = model_of(layer, *shapes, backend=backend)
    y = model.predict(arrays if len(arrays) > 1 else arrays[0])
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-14)
    if shape is not None:
        assert model.outputs[0].shape == shape


def test_what_would_mix_samples_is_refused() -> None:
    """Every kind that combines values along an axis, with the batch on that axis."""
    turned: Shape = (3, "steps", "batch")
    heads = MultiHeadAttention(3, 3, 3, 2, 2, 2, 4, causal=True)
    cases: list[tuple[Any, list[Shape]]] = [
        (softmax(0), [SEQUENCE]),
        (softmax(1), [MAJOR]),
        (softmax(-2), [MAJOR]),
        (softmax(-1, "log_softmax"), [turned]),
        (softmax(0), [("batch*steps", 3)]),
        (MaskedSoftmax(1), [MAJOR, MAJOR]),
        (Masking(), [turned]),
        (MaskedMean(), [MAJOR, ("steps", "batch")]),
        (UnitNormalization((1,)), [MAJOR]),
        (Pad(1, 1, 0), [MAJOR]),
        (Repeat(0, 2), [SEQUENCE]),
        (SizeOf(1), [MAJOR]),
        (Concatenate(0), [(4, 3), ("batch", 3)]),
        (Dot((1, 1)), [MAJOR, MAJOR]),
        (Attention(), [MAJOR, MAJOR]),
        (Attention(), [("steps", 5, "batch"), ("steps", 5, "batch")]),
        (Attention(causal=True), [MAJOR, ("steps", 5, 3)]),
        (heads, [MAJOR, MAJOR]),
        (heads, [MAJOR, ("steps", 5, 3)]),
        (Select(0, -1), [SEQUENCE]),
        (Slice(1, 1), [MAJOR]),
        (Flip((0,)), [SEQUENCE]),
        (Reduce("mean", (0, 1)), [SEQUENCE]),
        (Concatenate(0), [SEQUENCE, SEQUENCE]),
        (MatMul(), [("steps", "batch"), ("batch", 3)]),
        (Select(0, 1), [("batch*steps", 3)]),
    ]
    for layer, shapes in cases:
        with pytest.raises(FormatError, match=r"that is the batch.*is batch_first as it should be"):
            layer.output_shapes(shapes)
    for layer in (Conv1D(3, 2, 2), Pool1D("max", 2, 2), LSTM(3, 4), External("f", (4,))):
        for shape in (MAJOR, (7, "batch*steps", 3)):
            with pytest.raises(FormatError, match=r"that is the batch|the batch first"):
                layer.output_shapes([shape])
    for shape, target in (
        (SEQUENCE, ((0, 1), (0, 0), 3)),
        (("batch", 2, 3), (2, (0, 0), 3)),
        (("batch", 2, 3), (6, (0, 0))),
    ):
        with pytest.raises(FormatError, match="would mix samples of the batch"):
            Reshape(target).output_shapes([shape])
    # Merged in another order, taken apart in this one.
    with pytest.raises(FormatError, match="would mix samples"):
        Reshape(((1, 0), (1, 1), 3)).output_shapes([("steps*batch", 3), SEQUENCE])


def test_a_tensor_without_entries_has_any_inferred_size() -> None:
    empty = np.zeros((2, 0, 4))
    for target, shape in ((((0, 1), -1), (0, 8)), ((-1, (0, 1)), (8, 0))):
        (made,), _ = Reshape(target).forward({}, [empty], {})
        assert made.shape == shape


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        (Select(3, 0), [SEQUENCE], r"axis 3 does not fit an input \(batch, steps, 3\)"),
        (Select(2, 5), [SEQUENCE], "index 5 does not fit axis 2"),
        (Transpose((1, 0)), [SEQUENCE], r"axes \(1, 0\) do not fit"),
        (Reshape((4, -1)), [("batch", 3)], "would mix samples"),
        (Reshape(((0, 0), 2)), [("batch", 3)], "cannot be reshaped to"),
        (Reshape(((2, 0), 3)), [SEQUENCE], r"size \[2, 0\]: no such input or axis"),
        (Expand(((0, 0), 4)), [("batch", 3)], "do not fit together"),
        (Concatenate(1), [SEQUENCE, ("batch", "steps", 4)], "do not fit together"),
        (Stack(1), [SEQUENCE, MAJOR], "do not fit together"),
        (Stack(9), [SEQUENCE], "axis 9 does not fit"),
        (Arithmetic("add"), [SEQUENCE, ("batch", 4)], "do not fit together"),
        (Arithmetic("divide"), [SEQUENCE], "divide: expected two operands"),
        (MatMul(), [SEQUENCE, SEQUENCE], "cannot multiply"),
        (Constant((2,)), [SEQUENCE], "expected no input, got 1"),
        (softmax(3), [SEQUENCE], r"axis 3 does not fit an input \(batch, steps, 3\)"),
        (MaskedSoftmax(-4), [SEQUENCE, SEQUENCE], "axis -4 does not fit"),
        (Dot((0, 2)), [MAJOR, MAJOR], r"axes: expected two behind the first, got \(0, 2\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(layer: Any, shapes: Any, message: str) -> None:
    with pytest.raises((FormatError, ShapeError), match=message):
        layer.output_shapes(shapes)


def test_bad_configs_are_named() -> None:
    for make, message in (
        (lambda: Arithmetic("xor"), "operation: expected one of add, .*, got 'xor'"),
        (
            lambda: ActivationLayer(Activation.of("exec")),
            "unknown name 'exec', expected one of abs",
        ),
        (lambda: Reduce("median", (1,)), "operation: expected one of mean, .*, got 'median'"),
        (lambda: Transpose((0, 2)), r"axes: expected a permutation of 0..1, got \(0, 2\)"),
        (lambda: Reshape((-1, -1)), "shape: expected positive sizes"),
        (lambda: Full((0,)), "shape: expected positive sizes"),
        (lambda: Slice(1, step=0), "step: expected an integer other than 0, got 0"),
        (lambda: Reshape.from_json({"shape": [1.5]}), "shape: expected integers and pairs"),
        (lambda: Full.from_json({"shape": [2], "value": "x"}), "value: expected a number, got 'x'"),
        (lambda: Slice.from_json({"axis": 1, "stop": "x"}), "stop: expected an integer, got 'x'"),
        (lambda: Reduce.from_json({"operation": 3, "axes": [1]}), "operation: expected a string"),
    ):
        with pytest.raises(FormatError, match=message):
            make()


def test_steps_that_a_call_brings_are_checked(backend: str) -> None:
    model = model_of(Slice(1, -4, size=4), SEQUENCE, backend=backend)
    with pytest.raises(ShapeError, match=r"op: axis 1 of \(2, 3, 3\): expected 4 to take"):
        model.predict(A[:, :3])
    model = model_of(Select(1, 4), SEQUENCE, backend=backend)
    with pytest.raises(ShapeError, match=r"op: index 4 does not fit axis 1 of \(2, 3, 3\)"):
        model.predict(A[:, :3])


def test_a_merged_batch_is_not_cut(backend: str) -> None:
    model = model_of(Reshape((-1, 3)), SEQUENCE, backend=backend)
    np.testing.assert_array_equal(model.predict(A, batch_size=1), A.reshape(-1, 3))


def test_inf_and_nan_pass_silently() -> None:
    x = np.array([[np.inf, -np.inf, np.nan, 0.0]])
    for layer in (ActivationLayer(Activation.of("log")), ActivationLayer(Activation.of("sqrt")), ActivationLayer(Activation.of("reciprocal")),
                  Arithmetic("divide", 0.0), Reduce("mean", (1,))):  # fmt: skip
        model_of(layer, ("batch", 4)).predict(x)


def test_pairs_of_samples_are_refused() -> None:
    shapes: list[Shape] = [("batch", 3), (3, "batch")]
    inputs = (TensorSpec("a", ("batch", 3)),)
    made = [
        make_layer(n, x, RNG, "float64") for n, x in (("t", Transpose((1, 0))), ("p", MatMul()))
    ]
    edges = (Edge("t", ("a",), ("t",)), Edge("p", ("a", "t"), ("p",)))
    assert MatMul().output_shapes(shapes) == (("batch", "batch"),)
    with pytest.raises(FormatError, match=r"p: \(batch, batch\) would pair sample with sample"):
        ModelSpec(tuple(made), edges, inputs, ("p",), dtype="float64")
