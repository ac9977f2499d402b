"""Every function of Keras 3 and TensorFlow that has a row, in a model, against the framework."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.operations import NAMES, plan_of
from npylstm_converters.keras.parsing import parse

import npylstm
from npylstm import UnsupportedError

K: Any = keras.ops
C4 = np.array([0.5, -1.0, 2.0, 0.25], "float32")
M43 = np.random.default_rng(5).normal(size=(4, 3)).astype("float32")
Function = Callable[[Any, Any, Any], Any]


def of_one(function: Any, before: Any = None) -> Function:
    return lambda a, b, i: function(a if before is None else before(a))


def of_two(function: Any, behind: Any = None) -> Function:
    return lambda a, b, i: function(a, b) if behind is None else behind(function, a, b)


def along_steps(function: Any) -> Function:
    return lambda a, b, i: function(a, axis=1)


# Of sequences a, b (batch, 6, 4) and ids (batch, 6). Results with several tensors are lists.
KERAS: dict[str, Function] = {
    **{name: of_one(getattr(K, name)) for name in (
        "negative", "absolute", "abs", "square", "exp", "exp2", "expm1", "erf", "sin",
        "cos", "tan", "arctan", "sinh", "cosh", "arcsinh", "tanh", "sigmoid", "relu", "softplus",
        "softsign", "selu", "log_sigmoid", "hard_silu", "hard_tanh", "tanh_shrink", "sparse_plus",
        "sparse_sigmoid", "hard_sigmoid", "floor", "ceil", "trunc", "sign", "relu6", "elu",
        "celu", "leaky_relu", "soft_shrink", "hard_shrink", "squareplus", "silu", "gelu",
        "deg2rad", "rad2deg", "round", "softmax", "log_softmax", "zeros_like", "ones_like",
        "stop_gradient", "copy", "isnan", "isinf", "isfinite", "glu", "tril", "triu")},
    **{name: of_one(getattr(K, name), lambda a: K.abs(a) * 0.5 + 0.1) for name in (
        "sqrt", "rsqrt", "reciprocal", "log", "log2", "log10", "log1p", "arcsin", "arccos",
        "arctanh")},
    "arccosh": lambda a, b, i: K.arccosh(K.abs(a) + 1.5),
    **{name: of_two(getattr(K, name)) for name in (
        "add", "subtract", "multiply", "true_divide", "divide", "floor_divide", "mod", "maximum",
        "minimum", "arctan2", "hypot", "divide_no_nan")},
    "power": lambda a, b, i: K.power(K.abs(a) + 0.1, b),
    **{name: of_two(getattr(K, name), lambda f, a, b: K.cast(f(a, K.round(a * 2) / 2), "float32"))
       for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")},
    **{name: of_two(getattr(K, name), lambda f, a, b: K.where(f(a > 0, b > 0), a, b))
       for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": lambda a, b, i: K.where(K.logical_not(a > 0), 0.5, b),
    **{name: along_steps(getattr(K, name)) for name in (
        "mean", "sum", "prod", "max", "min", "amax", "amin", "logsumexp", "var", "std", "average",
        "ptp", "norm", "argmax", "argmin", "flip", "cumsum", "cumprod", "diff", "sort", "argsort")},
    "any": lambda a, b, i: K.cast(K.any(a > 1, axis=-1, keepdims=True), "float32"),
    "all": lambda a, b, i: K.cast(K.all(a > -1, axis=[1, 2]), "float32"),
    "keepdims": lambda a, b, i: a - K.max(a, axis=(1, 2), keepdims=True) + K.std(a, axis=1, keepdims=True),
    "moments": lambda a, b, i: [*K.moments(a, axes=[1])],
    "norm 1": lambda a, b, i: K.norm(a, ord=1, axis=-1, keepdims=True),
    "normalize": lambda a, b, i: K.normalize(a, axis=-1, order=2),
    "clip": lambda a, b, i: K.clip(a, -0.5, 0.25),
    "threshold": lambda a, b, i: K.threshold(a, 0.1, -3.0),
    "elu, alpha": lambda a, b, i: K.elu(a, alpha=0.5),
    "leaky, slope": lambda a, b, i: K.leaky_relu(a, 0.01),
    "gelu, exact": lambda a, b, i: K.gelu(a, approximate=False),
    "where": lambda a, b, i: K.where(a > b, a, 0.0),
    "top_k": lambda a, b, i: [*K.top_k(a, 2)],
    "one_hot": lambda a, b, i: K.one_hot(i, 5),
    "one_hot, axis": lambda a, b, i: K.one_hot(i, 3, axis=1),
    "take": lambda a, b, i: K.take(a, [3, 0, 0], axis=2),
    "take, one": lambda a, b, i: K.take(a, 2, axis=1),
    "take, array": lambda a, b, i: K.take(a, np.array([[1, 2]]), axis=-1),
    "take_along_axis": lambda a, b, i: K.take_along_axis(a, K.expand_dims(i, -1) % 4, axis=2),
    "take_along_axis, all features": lambda a, b, i: K.take_along_axis(
        a, K.expand_dims(i[:, :2], -1), axis=1),
    "take_along_axis, of one": lambda a, b, i: K.take_along_axis(
        a[:, :, :1], K.cast(K.abs(K.round(b)), "int32"), axis=1),
    "split": lambda a, b, i: [*K.split(a, 2, axis=-1)],
    "split, places": lambda a, b, i: [*K.split(a, [1, 3], axis=1)],
    "hsplit": lambda a, b, i: [*K.hsplit(a, 3)],
    "dsplit": lambda a, b, i: [*K.dsplit(a, 2)],
    "unstack": lambda a, b, i: [*K.unstack(a, axis=1)],
    "concatenate": lambda a, b, i: K.concatenate([a, b], axis=-1),
    "stack": lambda a, b, i: K.stack([a, b], axis=2),
    "expand_dims": lambda a, b, i: K.expand_dims(a, 2),
    "squeeze": lambda a, b, i: K.squeeze(a[:, :1], 1),
    "reshape": lambda a, b, i: K.reshape(a, (-1, 8, 3)),
    "transpose": lambda a, b, i: K.transpose(a, (0, 2, 1)),
    "swapaxes": lambda a, b, i: K.swapaxes(a, 1, -1),
    "moveaxis": lambda a, b, i: K.moveaxis(K.stack([a, b], axis=1), 1, -1),
    "fliplr": lambda a, b, i: K.fliplr(a),
    "flip, two": lambda a, b, i: K.flip(a, (1, 2)),
    "tile": lambda a, b, i: K.tile(a, (1, 2, 1)),
    "tile, last": lambda a, b, i: K.tile(a, 2),
    "repeat": lambda a, b, i: K.repeat(a, 2, axis=1),
    "roll": lambda a, b, i: K.roll(a, 2, axis=1),
    "pad": lambda a, b, i: K.pad(a, ((0, 0), (1, 2), (0, 0)), constant_values=0.5),
    "pad, reflect": lambda a, b, i: K.pad(a, ((0, 0), (1, 2), (0, 1)), mode="reflect"),
    "matmul": lambda a, b, i: K.matmul(a, K.transpose(b, (0, 2, 1))),
    "matmul, constant": lambda a, b, i: K.matmul(a, M43),
    "dot": lambda a, b, i: K.dot(a, M43),
    "tensordot": lambda a, b, i: K.tensordot(a, M43, axes=[[2], [0]]),
    "einsum": lambda a, b, i: K.einsum("btf,bsf->bts", a, b),
    "extract_sequences": lambda a, b, i: K.extract_sequences(K.transpose(a, (0, 2, 1)), 3, 2),
    "cast": lambda a, b, i: K.cast(K.cast(a * 3, "int32"), "float32"),
    "cast to logic": lambda a, b, i: K.where(K.cast(K.round(a), "bool"), a, b),
    "saturate_cast": lambda a, b, i: K.saturate_cast(a, "float32"),
    "convert_to_tensor": lambda a, b, i: K.convert_to_tensor(a),
    "array": lambda a, b, i: K.array(a),
    "full_like": lambda a, b, i: K.full_like(a, 0.5) * b,
    "getitem": lambda a, b, i: a[:, 1:-1, 2],
    "slice": lambda a, b, i: a[:, 2:5, 1:3],
    "constants": lambda a, b, i: (a * C4 + K.array([1.0, 2.0, 3.0, 4.0])) / (1 + C4**2),
    "constant first": lambda a, b, i: K.subtract(C4, a),
}  # fmt: skip
TENSORFLOW: dict[str, Function] = {
    **{f.__name__: of_one(f) for f in (
        tf.negative, tf.abs, tf.square, tf.exp, tf.math.expm1, tf.math.erf, tf.sin, tf.cos, tf.tan,
        tf.atan, tf.sinh, tf.cosh, tf.asinh, tf.tanh, tf.sigmoid, tf.nn.relu, tf.nn.softplus,
        tf.nn.softsign, tf.nn.selu, tf.math.log_sigmoid, tf.floor, tf.math.ceil, tf.sign, tf.round,
        tf.nn.relu6, tf.nn.elu, tf.nn.leaky_relu, tf.nn.silu, tf.nn.gelu, tf.nn.softmax,
        tf.nn.log_softmax, tf.zeros_like, tf.ones_like, tf.stop_gradient, tf.identity)},
    **{f.__name__: of_one(f, lambda a: tf.abs(a) * 0.5 + 0.1) for f in (
        tf.sqrt, tf.math.rsqrt, tf.math.reciprocal, tf.math.log, tf.math.log1p, tf.asin, tf.acos,
        tf.atanh)},
    "acosh": lambda a, b, i: tf.acosh(tf.abs(a) + 1.5),
    **{f.__name__: of_two(f) for f in (
        tf.add, tf.subtract, tf.multiply, tf.divide, tf.truediv, tf.math.floordiv,
        tf.math.floormod, tf.maximum, tf.minimum, tf.atan2, tf.math.squared_difference,
        tf.math.divide_no_nan)},
    "operators": lambda a, b, i: abs(-a) // 2 + a % 2 - (b**2) / 3,
    **{f.__name__: of_two(f, lambda f, a, b: tf.cast(f(a, tf.round(a * 2) / 2), tf.float32)) for f in (
        tf.equal, tf.not_equal, tf.less, tf.less_equal, tf.greater, tf.greater_equal)},
    **{f.__name__: of_two(f, lambda f, a, b: tf.where(f(a > 0, b > 0), a, b)) for f in (
        tf.logical_and, tf.logical_or, tf.math.logical_xor)},
    "logical_not": lambda a, b, i: tf.where(tf.logical_not(a > 0), 0.5, b),
    "is": lambda a, b, i: tf.where(tf.math.is_nan(a), a, tf.where(tf.math.is_inf(b), a, b)),
    "is_finite": lambda a, b, i: tf.where(tf.math.is_finite(a / tf.round(a)), a, b),
    **{f.__name__: along_steps(f) for f in (
        tf.reduce_mean, tf.reduce_sum, tf.reduce_prod, tf.reduce_max, tf.reduce_min,
        tf.reduce_logsumexp, tf.math.reduce_variance, tf.math.reduce_std,
        tf.math.reduce_euclidean_norm, tf.norm, tf.math.l2_normalize, tf.argmax, tf.argmin,
        tf.cumsum, tf.math.cumprod, tf.math.cumulative_logsumexp, tf.sort, tf.argsort)},
    "any, all": lambda a, b, i: tf.where(tf.reduce_any(a > 1, -1), 1.0, tf.cast(tf.reduce_all(b > -1, axis=-1), tf.float32)),
    "moments": lambda a, b, i: [*tf.nn.moments(a, [1])],
    "cumsum, reverse": lambda a, b, i: tf.cumsum(a, axis=1, exclusive=True, reverse=True),
    "sort, down": lambda a, b, i: tf.sort(a, axis=1, direction="DESCENDING"),
    "top_k": lambda a, b, i: [*tf.math.top_k(a, 2)],
    "clip": lambda a, b, i: tf.clip_by_value(a, -0.5, 0.25),
    "add_n": lambda a, b, i: tf.add_n([a, b, a]),
    "bias_add": lambda a, b, i: tf.nn.bias_add(a, C4),
    "one_hot": lambda a, b, i: tf.one_hot(i, 5, on_value=2.0, off_value=-1.0),
    "gather": lambda a, b, i: tf.gather(a, [3, 0], axis=2),
    "gather, batch": lambda a, b, i: tf.gather(a, i[:, :2], axis=1, batch_dims=1),
    "gather_nd": lambda a, b, i: tf.gather_nd(a, tf.expand_dims(i, -1), batch_dims=1),
    "split": lambda a, b, i: [*tf.split(a, 2, axis=-1)],
    "split, sizes": lambda a, b, i: [*tf.split(a, [1, -1, 3], axis=1)],
    "unstack": lambda a, b, i: [*tf.unstack(a, axis=2)],
    "concat": lambda a, b, i: tf.concat([a, b], axis=1),
    "stack": lambda a, b, i: tf.stack([a, b], axis=2),
    "expand_dims": lambda a, b, i: tf.expand_dims(a, 2),
    "squeeze": lambda a, b, i: tf.squeeze(a[:, :1], axis=1),
    "reshape": lambda a, b, i: tf.reshape(a, [-1, 24]),
    "reshape, by its batch": lambda a, b, i: tf.reshape(a, [tf.shape(a)[0], -1]),
    "transpose": lambda a, b, i: tf.transpose(a, [0, 2, 1]),
    "reverse": lambda a, b, i: tf.reverse(a, [1]),
    "tile": lambda a, b, i: tf.tile(a, [1, 2, 1]),
    "repeat": lambda a, b, i: tf.repeat(a, 2, axis=1),
    "roll": lambda a, b, i: tf.roll(a, 2, axis=1),
    "pad": lambda a, b, i: tf.pad(a, [[0, 0], [1, 2], [0, 0]], constant_values=0.5),
    "pad, reflect": lambda a, b, i: tf.pad(a, [[0, 0], [1, 2], [0, 0]], "REFLECT"),
    "band_part": lambda a, b, i: tf.linalg.band_part(a, -1, 0) + tf.linalg.band_part(b, 0, -1),
    "matmul": lambda a, b, i: tf.matmul(a, b, transpose_b=True),
    "matmul, constant": lambda a, b, i: a @ tf.constant(M43),
    "tensordot": lambda a, b, i: tf.tensordot(a, M43, 1),
    "slice": lambda a, b, i: tf.slice(a, [0, 2, 1], [-1, 3, 2]),
    "strided_slice": lambda a, b, i: tf.strided_slice(a, [0, 1, 0], [9, 5, 3], [1, 2, 1], begin_mask=1, end_mask=1),
    "ensure_shape": lambda a, b, i: tf.ensure_shape(a, (None, 6, 4)),
    "cast": lambda a, b, i: tf.cast(tf.cast(a * 3, tf.int32), tf.float32),
    "zeros": lambda a, b, i: tf.zeros([tf.shape(a)[0], 4]) + b[:, 0],
    "ones": lambda a, b, i: tf.ones(tf.shape(a)) * b,
    "fill": lambda a, b, i: tf.fill(tf.stack([tf.shape(a)[0], 4]), 0.5) * b[:, 0],
    "broadcast_to": lambda a, b, i: tf.broadcast_to(a[:, :1], tf.shape(b)),
    "constants": lambda a, b, i: (C4 - a * tf.constant(C4)) / (1.0 + C4**2),
}  # fmt: skip
TABLES = {"keras3": KERAS, "tf_keras": TENSORFLOW}
SIZE = 16  # functions of one model: building and converting models takes most of the time
GROUPS = [
    (framework, tuple([*functions][k : k + SIZE]))
    for framework, functions in TABLES.items()
    for k in range(0, len(functions), SIZE)
]


@functools.cache
def build(framework: str, names: tuple[str, ...]) -> Any:
    """A model with the results of some functions as outputs."""
    k: Any = keras if framework == "keras3" else tf_keras
    a, b = k.Input((6, 4), name="a"), k.Input((6, 4), name="b")
    ids = k.Input((6,), dtype="int32", name="ids")
    outputs: list[Any] = []
    for name in names:
        made = TABLES[framework][name](a, b, ids)
        outputs += made if isinstance(made, list) else [made]
    return k.Model([a, b, ids], outputs)


def operations(model: Any) -> Iterator[tuple[Any, Any, list[Any]]]:
    """The operations of a model: raw layers, calls, and shapes for what they read."""
    graph = parse(json.loads(model.to_json()))
    raws = {raw.name: raw for raw in graph.layers}
    for call in graph.calls:
        if raws[call.layer].is_operation:
            yield raws[call.layer], call, [("batch", 6, 4)] * len(call.reads)


@pytest.mark.parametrize(("framework", "names"), GROUPS, ids=[f"{f}-{n[0]}" for f, n in GROUPS])
def test_numbers(framework: str, names: tuple[str, ...]) -> None:
    model = build(framework, names)
    rng = np.random.default_rng(1)
    x = [*rng.normal(size=(2, 3, 6, 4)).astype("float32"), rng.integers(0, 6, (3, 6))]
    wanted = model([x[0], x[1], x[2].astype("int32")])
    spec = nc.from_keras(model)
    got = npylstm.Model(spec, "numpy").predict(x)
    for name, theirs in zip(spec.outputs, wanted, strict=True):
        y = np.asarray(theirs)
        assert got[name].shape == y.shape, name
        # tan, products and divisions by small numbers magnify the rounding of float32
        np.testing.assert_allclose(got[name], y, rtol=1e-4, atol=1e-5, err_msg=name)


def test_every_row_is_in_a_model() -> None:
    seen: set[str] = set()
    for framework, names in GROUPS:
        for raw, _, _ in operations(build(framework, names)):
            function = str(raw.config.get("function"))
            seen.add(raw.class_name.removeprefix("ops.") if "ops." in raw.class_name else function)
    # Other names of the same functions, in files of other versions.
    others = {"Abs", "BroadcastTo", "Fabs", "Fmod", "Slice", "gather", "gather_nd", "math.divide",
              "math.floordiv", "math.logical_xor", "math.mod", "nn.softplus", "norm", "pad", "shape",
              "shape_v2", "squeeze", "transpose", "where_v2"}  # fmt: skip
    assert set(NAMES) - seen <= others
    assert len(seen) > 150


@pytest.mark.parametrize(("framework", "names"), GROUPS, ids=[f"{f}-{n[0]}" for f, n in GROUPS])
def test_an_argument_too_many(framework: str, names: tuple[str, ...]) -> None:
    """Whatever its value, an argument that no row names is refused."""
    for raw, call, shapes in operations(build(framework, names)):
        values = [None] * len(shapes)
        tensors = [f"x{k}" for k in range(len(shapes))]
        for value in (0.5, None, False, "half"):
            odd = replace(call, keyword_arguments={**call.keyword_arguments, "heat": value})
            config = replace(raw, config={**raw.config, "heat": value})
            for other, wrong in ((raw, odd), (config, call)):
                with pytest.raises(Refusal, match="heat"):
                    plan_of(other, wrong, tensors, shapes, values)
        many = replace(call, positional=(*call.positional, *[0.5] * 9))
        if raw.config.get("function") not in ("zeros", "ones", "fill"):
            with pytest.raises(Refusal):
                plan_of(raw, many, tensors, shapes, values)


REFUSED: dict[str, tuple[Function, str]] = {
    "dot of stacks": (lambda a, b, i: K.dot(a, K.transpose(b, (0, 2, 1))), "dot of two stacks"),
    "many copies": (lambda a, b, i: K.tile(a, (1, 1, 20_000)), "repeats: expected up to 10000"),
    "over the batch": (lambda a, b, i: K.cumsum(a, axis=0), "along axis 0"),
    "of everything": (lambda a, b, i: K.argmax(a), "axis=None: would mix samples"),
    "flattened": (lambda a, b, i: K.take(a, [1, 2]), "axis=None: expected the axis"),
    "flipped batch": (lambda a, b, i: K.flip(a, axis=0), "batch"),
    "half precision": (lambda a, b, i: K.cast(a, "float16"), "to 'float16' is not supported"),
    "symmetric": (lambda a, b, i: K.pad(a, ((0, 0), (1, 1), (0, 0)), "symmetric"),
                  "mode='symmetric' is not supported"),
    "inf norm": (lambda a, b, i: K.norm(a, ord=np.inf, axis=-1), "ord=.*is not supported"),
    "median": (lambda a, b, i: K.median(a, axis=1), "operation 'Median' is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    function, reason = REFUSED[name]
    a, b = keras.Input((6, 4)), keras.Input((6, 4))
    with pytest.raises(UnsupportedError, match=reason):
        nc.from_keras(keras.Model([a, b], [function(a, b, None), b + 1]))
