"""Attention and products of tensors as kernels: block edges, bits, nan and masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backends import COMPILED
from builders import make_layer

from npylstm import FormatError, Model, ModelSpec, ShapeError
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.base import Operation
from npylstm.ops.indexing import Slice
from npylstm.ops.products import Dot, MatMul
from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Transpose
from npylstm.runtime.program import is_native
from npylstm.spec import Edge, LayerSpec, TensorSpec

Array = np.ndarray[Any, Any]

QUERIES, VALUES = ("batch", "other", 24), ("batch", "steps", 24)
PAIRS: Shape = ("batch", "other", "steps")
ATTENTIONS = (
    Attention(), Attention("additive", 24, scaled=True), Attention("concat", scaled=True),
    MultiHeadAttention(24, 24, 24, 3, 17, 5, 20),
)  # fmt: skip


def model_of(operation: Operation, *shapes: Shape, dtype: str = "float32") -> ModelSpec:
    """Return a model of one operation."""
    inputs = tuple(TensorSpec(f"x{k}", shape) for k, shape in enumerate(shapes))
    outputs = tuple(f"y{name}" for name in operation.output_names())
    layer = make_layer("layer", operation, np.random.default_rng(3), dtype)
    edge = Edge("layer", tuple(t.name for t in inputs), outputs)
    return ModelSpec((layer,), (edge,), inputs, outputs, dtype=dtype)


def draw(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Array]:
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


def check(operation: Operation, shapes: list[Shape], inputs: list[Array], terms: int) -> None:
    """Compare with NumPy in float64.

    Sums of ``terms`` terms below 1 in size lose at most ``terms eps`` each; scores are such sums,
    and weights hand on their error by a factor below 2.
    """
    assert is_native(LayerSpec("op", operation), "float32")
    spec = model_of(operation, *shapes)
    exact = Model(spec.astype("float64"), "numpy").predict(inputs)
    atol = 4 * terms * np.finfo("float32").eps * max(1.0, np.abs(exact).max())
    np.testing.assert_allclose(Model(spec, COMPILED).predict(inputs), exact, rtol=0, atol=atol)


@pytest.mark.parametrize("operation", ATTENTIONS, ids=lambda o: getattr(o, "score", o.kind))
@pytest.mark.parametrize(("queries", "steps"), [(1, 1), (65, 17), (3, 100), (128, 16)])
def test_attention_at_the_edges_of_blocks(operation: Operation, queries: int, steps: int) -> None:
    inputs = draw((2, queries, 24), (2, steps, 24))
    check(operation, [QUERIES, VALUES], inputs, 24 + steps)


@pytest.mark.parametrize("units", [1, 16, 17, 64, 130])
def test_values_of_any_size(units: int) -> None:
    shapes: list[Shape] = [QUERIES, ("batch", "steps", units), VALUES]
    check(Attention(), shapes, draw((2, 5, 24), (2, 33, units), (2, 33, 24)), 24 + 33)


@pytest.mark.parametrize("units", [1, 16, 17, 64, 130])
@pytest.mark.parametrize("rows", [1, 65])
def test_matrices_of_any_size(rows: int, units: int) -> None:
    x, y, z = draw((3, rows, 70), (3, units, 70), (70, units))
    shapes: list[Shape] = [("batch", "other", 70), ("batch", units, 70)]
    check(Dot((2, 2)), shapes, [x, y], 70)
    check(Dot((2, 2), normalize=True), shapes, [x, y], 70)
    check(Dot((1, 1)), [("batch", 70, "other"), ("batch", 70, units)],
          [np.ascontiguousarray(a.swapaxes(1, 2)) for a in (x, y)], 70)  # fmt: skip
    constant: list[Shape] = [("batch", "other", 70), (70, units)]
    check(MatMul(), constant, [x, z], 70)


def test_products_along_several_axes() -> None:
    many: Shape = ("batch", 2, 3, 2, 2, 2, 2, 4, 5)  # more axes than the kernel has loops
    check(MatMul(), [many, ("batch", 1, 3, 1, 2, 1, 2, 5, 3)],
          draw((2, *many[1:]), (2, 1, 3, 1, 2, 1, 2, 5, 3)), 5)  # type: ignore[arg-type] # fmt: skip
    check(Dot((2, 1)), [("batch", 3, 7, 4), ("batch", 7, 2, 3)],
          draw((2, 3, 7, 4), (2, 7, 2, 3)), 7)  # fmt: skip
    empty = Model(model_of(MatMul(), QUERIES, (24, 3)), COMPILED)
    assert empty.predict(draw((0, 4, 24), (24, 3))).shape == (0, 4, 3)


@pytest.mark.parametrize("operation", [*ATTENTIONS, MatMul(), Dot((2, 2))], ids=lambda o: o.kind)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_of_a_row_depend_on_no_other(operation: Operation, dtype: str) -> None:
    second: Shape = ("batch", 24, "steps") if operation.kind == "matmul" else VALUES
    model = Model(model_of(operation, QUERIES, second, dtype=dtype), COMPILED)
    sizes = (3, 24, 37) if operation.kind == "matmul" else (3, 37, 24)
    x, y = draw((3, 67, 24), sizes, dtype=dtype)
    together = model.predict([x, y])
    for sample in range(3):
        one = slice(sample, sample + 1)
        for first, end in ((0, 1), (1, 5), (5, 67)):
            alone = model.predict([x[one, first:end], y[one]])
            np.testing.assert_array_equal(alone, together[one, first:end])


@pytest.mark.parametrize("operation", ATTENTIONS[:3], ids=lambda o: getattr(o, "score", o.kind))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_where_numpy_has_it(operation: Operation, value: float) -> None:
    spec = model_of(operation, QUERIES, VALUES)
    for which, at in ((0, (0, 3, 2)), (1, (1, 7, 5))):
        inputs = draw((2, 5, 24), (2, 20, 24))
        inputs[which][at] = value
        made = Model(spec, COMPILED).predict(inputs)
        with np.errstate(invalid="ignore"):
            expected = Model(spec, "numpy").predict(inputs)
        np.testing.assert_array_equal(np.isfinite(made), np.isfinite(expected))
        np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))


@pytest.mark.parametrize("rule", ["lowered", "additive", "uniform", "zero"])
@pytest.mark.parametrize("in_float32", [False, True])
def test_weights_of_a_query_without_keys(rule: str, in_float32: bool) -> None:
    operation = MultiHeadAttention(
        24, 24, 24, 2, 8, 8, 5, masked=(3,), fully_masked=rule, mask_in_float32=in_float32,
        return_scores=True,
    )  # fmt: skip
    spec = model_of(operation, QUERIES, VALUES, PAIRS)
    inputs = [*draw((2, 4, 24), (2, 9, 24)), np.ones((2, 4, 9), np.float32)]
    inputs[2][:, 1] = 0
    inputs[2][:, 2, ::2] = 0
    inputs[2][:, 3] = 0.5 if rule == "additive" else 1
    made = Model(spec, COMPILED).predict(inputs)
    exact = Model(spec.astype("float64"), "numpy").predict(inputs)
    for name, y in exact.items():  # errors of scores: sums of 24 and 8 terms; 1e9 in float64: 1e-7
        np.testing.assert_allclose(made[name], y, rtol=0, atol=200 * np.finfo("float32").eps)


def test_a_negative_scale_leaves_masked_keys_without_weight() -> None:
    spec = model_of(Attention(scaled=True, masked=(1,), return_scores=True), QUERIES, VALUES,
                    ("batch", "steps"))  # fmt: skip
    scale = {"scale": np.full(1, -2, np.float32)}
    spec = replace(spec, layers=(replace(spec.layers[0], weights=scale),))
    mask = np.array([[1, 0, 1, 0]], np.float32)
    made = Model(spec, COMPILED).predict([*draw((1, 2, 24), (1, 4, 24)), mask])
    assert (made["yscores"][:, :, [1, 3]] == 0).all()
    assert (made["yscores"][:, :, [0, 2]] > 0).all()


def test_a_scale_has_the_size_of_the_features() -> None:
    with pytest.raises(FormatError, match="scale of 3 features does not fit queries of 24"):
        Attention("additive", 3, scaled=True).infer_shapes([QUERIES, VALUES])


@pytest.mark.parametrize("operation", [Dot((1, 1)), MatMul()])
def test_sums_of_no_terms_are_zero(operation: Operation, backend: str) -> None:
    """Steps that a slice has left out."""
    swapped = Transpose((0, 2, 1)) if operation.kind == "matmul" else Transpose((0, 1, 2))
    layers = {"a": Slice(1, stop=-3), "b": Slice(1, stop=-3), "swap": swapped, "op": operation}
    edges = (
        Edge("a", ("x",), ("p",)), Edge("b", ("x",), ("q",)), Edge("swap", ("p",), ("r",)),
        Edge("op", ("r", "q"), ("y",)),
    )  # fmt: skip
    spec = ModelSpec(
        tuple(LayerSpec(name, op, {}) for name, op in layers.items()), edges,
        (TensorSpec("x", ("batch", "steps", 4)),), ("y",),
    )  # fmt: skip
    y = Model(spec, backend).predict(np.ones((2, 3, 4), "float32"))
    np.testing.assert_array_equal(y, np.zeros((2, 4, 4)))


def test_attention_to_no_steps_is_an_error(backend: str) -> None:
    layers = {"a": Slice(1, stop=-3), "op": Attention()}
    edges = Edge("a", ("x",), ("p",)), Edge("op", ("x", "p"), ("y",))
    spec = ModelSpec(
        tuple(LayerSpec(name, op, {}) for name, op in layers.items()), edges,
        (TensorSpec("x", ("batch", "steps", 4)),), ("y",),
    )  # fmt: skip
    with pytest.raises(ShapeError, match=r"attention along axis 1 of \(2, 0, 4\)"):
        Model(spec, backend).predict(np.ones((2, 3, 4), "float32"))
