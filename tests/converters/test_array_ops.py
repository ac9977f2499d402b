"""The array operations that importers share compute what NumPy computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops, index_ops, shaping_ops, window_ops

from npylstm import FormatError, Model, ModelSpec, ShapeError
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.arithmetic import Constant
from npylstm.ops.base import Operation
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.convolution_nd import Convolution, ConvolutionTranspose
from npylstm.ops.gathering import Take
from npylstm.ops.indexing import Pad, Slice
from npylstm.ops.pooling import AdaptivePool, Pool
from npylstm.ops.shapes import Shape
from npylstm.ops.sorting import ArgReduce, TopK
from npylstm.spec import TensorSpec

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 5, 3))  # (batch, steps, 3)
Z = RNG.normal(size=(2, 5, 3))
N = RNG.integers(0, 3, size=(2, 5, 3))
SUMS = np.array(
    [[[Z[b, t][N[b, t] == k].sum() for k in range(3)] for t in range(5)] for b in range(2)]
)
INPUTS = {"x": X, "z": Z, "n": N.astype(float)}


class Names:
    """A graph whose tensors are names."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        specs = [TensorSpec(name, shape) for name, shape in shapes.items()]
        self.builder = GraphBuilder(specs, dtype="float64")

    def tensor(self, value: Any) -> str:
        if value not in self.builder.shapes:
            raise Refusal(f"no tensor {value!r}")
        return str(value)

    def number(self, value: Any) -> float | None:
        return value if isinstance(value, (int, float)) else None

    def shape(self, tensor: str) -> Shape:
        return self.builder.shapes[tensor]

    def add(self, operation: Operation, *tensors: str, part: str = "") -> str:
        return self.builder.add(part or "op", operation, tensors)[0]

    def model(self, *outputs: str) -> Model:
        """Return the model of the inputs that are used."""
        builder = self.builder
        names = builder.simplify(builder.finish(outputs))
        read = {name for edge in builder.edges for name in edge.inputs}
        inputs = tuple(t for t in builder.inputs if t.name in read)
        layers = tuple(builder.layers.values())
        spec = ModelSpec(layers, tuple(builder.edges), inputs, names, dtype="float64")
        return Model(spec, "numpy")


def computed(function: Callable[..., Any], *args: Any) -> Array:
    """Run a function on a graph of the inputs x, z and n."""
    graph = Names(dict.fromkeys(INPUTS, ("batch", "steps", 3)))
    model = graph.model(function(graph, *args))
    y: Array = model.predict({t.name: INPUTS[t.name] for t in model.inputs})
    return y


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (array_ops.arithmetic("less"), ["x", "z"], X < Z),
        (array_ops.arithmetic("less"), [0.25, "z"], Z > 0.25),
        (array_ops.arithmetic("atan2"), ["x", "z"], np.arctan2(X, Z)),
        (array_ops.where, ["x", "z", 0.5], np.where(X != 0, Z, 0.5)),
        (array_ops.where, ["x", -1.5, "z"], np.where(X != 0, -1.5, Z)),
        (array_ops.reduce("prod"), ["x", [1, -1]], X.prod((1, 2))),
        (array_ops.spread("var"), ["x", -1, 1, True], X.var(-1, ddof=1, keepdims=True)),
        (array_ops.clip, ["x", -0.5, 0.25], X.clip(-0.5, 0.25)),
        (array_ops.clip, ["x", None, 0.25], np.minimum(X, 0.25)),
        (array_ops.clip, ["x", 0.0, "z"], np.minimum(np.maximum(X, 0), Z)),
        (array_ops.clip, ["x", "z"], np.maximum(X, Z)),
        (array_ops.arg_reduce("max"), ["x", -1], X.argmax(-1)),
        (array_ops.top_k("values"), ["x", 2], np.sort(X)[..., :0:-1]),
        (array_ops.top_k("indices"), ["x", None, 1, False], X.argsort(1)),
        (array_ops.cumulative("sum"), ["x", 1], X.cumsum(1)),
        (array_ops.standardize, ["x", 1, 1, 0.5], (X - X.mean(1, keepdims=True)) / (X.std(1, ddof=1, keepdims=True) + 0.5)),
        (array_ops.unit_normalization, ["x", 1, 1], X / np.abs(X).sum(1, keepdims=True)),
        (index_ops.take, ["x", [[0, -1], [1, 1]], 2], X[..., [[0, -1], [1, 1]]]),
        (index_ops.take, ["x", -2, 1], X[:, -2]),
        (index_ops.take, ["x", np.array([3, 0]), 1], X[:, [3, 0]]),
        (index_ops.take, ["x", "n", -1, 2], np.take_along_axis(X, N, -1)),
        (index_ops.take_along_axis, ["x", "n", 2], np.take_along_axis(X, N, 2)),
        (index_ops.scatter_elements("add"), ["x", "n", "z", 2], X + SUMS),
        (index_ops.one_hot, ["n", 3, -1, 2.0, -1.0], np.where(N[..., None] == [0, 1, 2], 2, -1)),
        (index_ops.trilu, ["x", -1], np.tril(X, -1)),
        (index_ops.slice_axis, ["x", 1, None, None, -1], X[:, ::-1]),
        (index_ops.slice_axis, ["x", 1, -1, -(2**63), -2], X[:, ::-2]),
        (index_ops.slice_axis, ["x", -1, 1, 2**31 - 1], X[..., 1:]),
        (index_ops.slice_axis, ["x", 1, -(2**31), -2, 1], X[:, :-2]),
        (index_ops.pad, ["x", [(0, 0), (2, -1), (0, 1)], "constant", 0.5],
         np.pad(X[:, :-1], [(0, 0), (2, 0), (0, 1)], constant_values=0.5)),
        (index_ops.pad, ["x", [(0, 0), (2, 1), (1, 2)], "reflect"],
         np.pad(X, [(0, 0), (2, 1), (1, 2)], "reflect")),
        (array_ops.einsum, ["btn,bsn->bts", ["x", "z"]], X @ Z.swapaxes(1, 2)),
        (array_ops.cosine_similarity, ["x", "z", -1],
         (X * Z).sum(-1) / np.linalg.norm(X, axis=-1) / np.linalg.norm(Z, axis=-1)),
        (window_ops.resize, ["x", [1, 2], [10, 6]], X.repeat(2, 1).repeat(2, 2)),
        (window_ops.resize, ["x", [1, 2], None, [1.0, 2.0]], X.repeat(2, 2)),
        (array_ops.expand_dims, ["x", [0, -1]], X[None, ..., None]),
        (array_ops.merge("maximum"), [["x", "z", "n"]], np.maximum(np.maximum(X, Z), N)),
        (shaping_ops.flatten, ["x"], X.reshape(2, -1)),
        (shaping_ops.flatten, ["x", -1], X.reshape(-1, 3)),
        (shaping_ops.tile, ["x", [1, 2, 3]], np.tile(X, (1, 2, 3))),
        (shaping_ops.repeat, ["x", 2, -1], X.repeat(2, -1)),
        (shaping_ops.roll, ["x", 2, 1], np.roll(X, 2, 1)),
        (shaping_ops.roll, ["x", -2, 1], np.roll(X, -2, 1)),
        (shaping_ops.roll, ["x", 5, 2], np.roll(X, 5, 2)),
        (shaping_ops.sliding_windows, ["x", 2, 1, 1], np.lib.stride_tricks.sliding_window_view(X, 2, 1)),
        (shaping_ops.positions, ["x", 1], np.arange(5)),
        (window_ops.global_pool("mean"), ["x"], X.mean(1)),
        (window_ops.global_pool("max", True), ["x", True], X.max(2, keepdims=True)),
        (window_ops.adaptive_pool("mean"), ["x", 2], np.stack([X[:, :3].mean(1), X[:, 2:].mean(1)], 1)),
        (window_ops.adaptive_pool("max", True), ["x", [None]], X),
    ],
)  # fmt: skip
def test_values(function: Callable[..., Any], arguments: list[Any], expected: Array) -> None:
    y = computed(function, *arguments)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-14)  # some sums of few terms


@pytest.mark.parametrize("depth_first", [True, False])
def test_blocks_move_to_positions_and_back(depth_first: bool) -> None:
    x = RNG.normal(size=(2, 8, 3, 5))
    graph = Names({"x": ("batch", 8, "height", "width")})
    wide = window_ops.depth_to_space(graph, "x", 2, depth_first)
    deep = window_ops.space_to_depth(graph, wide, 2, depth_first)
    model = graph.model(wide, deep)
    made = model.predict({"x": x})
    expected = np.zeros((2, 2, 6, 10))
    for b, c, i, j in np.ndindex(*expected.shape):
        row, column = i % 2, j % 2
        source = (row * 2 + column) * 2 + c if depth_first else c * 4 + row * 2 + column
        expected[b, c, i, j] = x[b, source, i // 2, j // 2]
    np.testing.assert_array_equal(made[wide], expected)
    np.testing.assert_array_equal(made[deep], x)


def test_parts_of_a_tensor() -> None:
    graph = Names({"x": ("batch", "steps", 3)})
    parts = shaping_ops.split(graph, "x", [1, 2], -1)
    made = graph.model(*parts).predict({"x": X})
    for part, expected in zip(parts, (X[..., :1], X[..., 1:]), strict=True):
        np.testing.assert_array_equal(made[part], expected)
    with pytest.raises(Refusal, match="sizes: expected a sum of 3, got"):
        shaping_ops.split(graph, "x", [1, 1], 2)
    with pytest.raises(Refusal, match="times: expected a positive integer, got 0"):
        shaping_ops.tile(graph, "x", [1, 0, 1])


def test_vectors_are_multiplied_and_axes_of_size_one_removed() -> None:
    graph = Names({"x": ("batch", "steps", 1, 3)})
    x = X[:, :, None]
    weight = array_ops.reduce("sum")(graph, "x", [1, 2])  # (batch, 3)
    plain = array_ops.squeeze(graph, "x")
    every = array_ops.squeeze(graph, "x", [2])
    assert graph.shape(plain) == graph.shape(every) == ("batch", "steps", 3)
    vector = graph.add(Constant((3,)))
    graph.builder.layers[vector] = replace(
        graph.builder.layers[vector], weights={"value": np.array([1.0, -2.0, 0.5])}
    )
    outputs = array_ops.matmul(graph, plain, vector), array_ops.matmul(graph, vector, vector)
    made = graph.model(outputs[0], weight).predict({"x": x})
    np.testing.assert_allclose(made[outputs[0]], X @ [1.0, -2.0, 0.5], rtol=1e-14)
    assert graph.shape(outputs[1]) == ()


def test_one_axis_has_its_own_layers() -> None:
    conv, pool = window_ops.convolution, window_ops.pool
    one = Conv1D(3, 4, 2, stride=2, padding=(1, 0), channels_first=True)
    assert conv(3, 4, [2], stride=[2], padding=[1, 0], channels_first=True) == one
    assert conv(3, 4, [2], same="upper") == Conv1D(3, 4, 2, same=True)
    assert conv(3, 4, [2], same="lower").kind == "convolution"
    assert conv(3, 4, [2, 1]).kind == "convolution"
    assert pool("max", [2], stride=[2]) == Pool1D("max", 2, 2)
    assert pool("max", [2], ceil=True).kind == "pool"
    assert window_ops.pairs("padding", [1, 2], 2) == (1, 1, 2, 2)
    with pytest.raises(Refusal, match="stride: expected 2 integers"):
        window_ops.integers("stride", [1, 2, 3], 2)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda: Convolution(3, 4, (2, 2), (1,)), "stride: expected 2 integers from 1 on"),
        (lambda: Convolution(3, 4, (2,), padding=(1, -1)), "padding: expected 2 integers from 0 on"),
        (lambda: Convolution(3, 4, ()), "size: expected at least one axis"),
        (lambda: Convolution(3, 4, (2,), padding=(1, 1), same="upper"), "same: expected no padding"),
        (lambda: Convolution(3, 4, (2,), same="both"), "same: expected one of , upper, lower"),
        (lambda: Convolution(3, 4, (2,), groups=2), "groups: expected a divisor of 3 and 4"),
        (lambda: Convolution(3, 4, (7,)).output_shapes([(1, 5, 3)]), "expected at least 7 steps"),
        (lambda: Convolution(3, 4, (2, 2)).output_shapes([(1, 5, 3)]), "expected an input of 4 axes"),
        (lambda: Pool("median", (2,)), "operation: expected one of max, mean"),
        (lambda: Pool("lp", (2,), p=0.0), "p: expected a positive number"),
        (lambda: AdaptivePool("max", (0,)), "size: expected a positive integer"),
        (lambda: ConvolutionTranspose(3, 4, (1,), padding=(3, 3)).output_shapes([(1, 5, 3)]),
         "no entry remains"),
    ],
)  # fmt: skip
def test_windows_that_do_not_fit_are_named(operation: Callable[[], Any], message: str) -> None:
    with pytest.raises((FormatError, ShapeError), match=message):
        operation()


def test_an_index_beyond_the_axis_is_named() -> None:
    for wrong in (3.0, -4.0, 0.5, np.nan):
        at = np.array([0.0, wrong])
        with pytest.raises(
            ShapeError, match=r"index .* at \(1,\): expected an integer from -3 to 2"
        ):
            Take(1).forward({}, [np.zeros((2, 3)), at], {})
    with pytest.raises(ShapeError, match="index -4 does not fit axis 1"):
        Take(1, (-4,)).output_shapes([("batch", 3)])


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda: Pad(1, 3, 0, "reflect").output_shapes([(2, 3)]), "expected at least 4 entries"),
        (lambda: Pad(1, -2, -1).output_shapes([(2, 3)]), "expected at least 4 entries on axis 1"),
        (lambda: Pad(1, 4, 0, "wrap").output_shapes([(2, 3)]), "expected at least 4 entries"),
        (lambda: Pad(1, 1, -1, "edge"), "expected two numbers of one sign"),
        (lambda: Pad(1, 1, 1, "edge", 2.0), "value: expected 0 for the mode edge"),
        (lambda: Pad(1, 1, 1, "symmetric"), "mode: expected one of constant, reflect, edge, wrap"),
        (lambda: Slice(1, step=0), "step: expected an integer other than 0"),
    ],
)
def test_what_is_wrong_is_named(operation: Callable[[], Any], message: str) -> None:
    with pytest.raises((FormatError, ShapeError), match=message):
        operation()


def test_nan_is_the_largest() -> None:
    x = np.array([[1.0, np.nan, 3.0]])
    for operation, expected in (
        (TopK(1), [[np.nan, 3, 1]]),
        (TopK(1, largest=False), [[1, 3, np.nan]]),
        (ArgReduce("max", 1), [1]),
    ):
        (y,), _ = operation.forward({}, [x], {})
        np.testing.assert_array_equal(y, expected)
