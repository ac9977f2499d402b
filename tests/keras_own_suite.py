"""The cases that Keras tests its own recurrent layers with, told anew for npylstm.

Facts (which layer, which input, which numbers come out) are from the public test suites

- of Keras 3, ``keras/src/layers/``: ``rnn/{lstm,gru,simple_rnn,rnn,stacked_rnn_cells,
  bidirectional,time_distributed}_test.py``, ``attention/{attention,additive_attention,
  multi_head_attention}_test.py``, ``core/{masking,embedding}_test.py``,
  ``pooling/global_average_pooling_test.py``,
  ``normalization/{layer,unit}_normalization_test.py``;
- of tf_keras, ``tf_keras/layers/``: ``rnn/{lstm,gru,simple_rnn,base_rnn,bidirectional,
  time_distributed,gru_lstm,lstm_v1,gru_v1}_test.py``, ``attention/{attention,additive_attention,
  multi_head_attention}_test.py``, ``core/embedding_test.py``,
  ``pooling/global_average_pooling_test.py``;
- of Keras 2, ``tests/keras/layers/{recurrent,wrappers}_test.py``.

Each case is held against the printed numbers and against the framework that is installed. Where
the suites have cells of their own, the case is told with a built-in cell that computes the same:
their cell of one state is a linear SimpleRNNCell of ones without a bias; their cell of two states
puts out twice that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from keras_graphs import BACKENDS, FRAMEWORKS, assert_parity, flat, randomise, run

from npylstm import Model

# Printed as the shortest digits that give the float32 back, so a number is as good as the run that
# made it: off by some units in the last place of 1, the size of what the cells put out.
PRINTED = 4 * float(np.finfo("float32").eps)
EXACT = 0.0  # whole numbers, which float32 adds and multiplies without rounding
PAD = -1.0  # no input of a masked case holds it

Make = Callable[[Any], Any]  # from a framework to a layer, or what is called like one


def layer(class_name: str, *args: Any, **options: Any) -> Make:
    return lambda k: getattr(k.layers, class_name)(*args, **options)


def cell(
    class_name: str,
    units: int,
    constants: tuple[float, float, float] = (0.01, 0.02, 0.03),
    /,
    **options: Any,
) -> Make:
    """A recurrent layer, or a cell, with a constant each for kernel, recurrent kernel and bias."""

    def make(k: Any) -> Any:
        names = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
        fill = {n: k.initializers.Constant(c) for n, c in zip(names, constants, strict=True)}
        return getattr(k.layers, class_name)(units, **fill, **options)

    return make


def summing(units: int, kernel: float = 1.0) -> Make:
    """The suites' cell of one state."""
    return cell("SimpleRNNCell", units, (kernel, 1.0, 0.0), activation="linear", use_bias=False)


def rnn(*cells: Make, **options: Any) -> Make:
    """RNN around a cell, or a list of several."""

    def make(k: Any) -> Any:
        made = [c(k) for c in cells]
        return k.layers.RNN(made[0] if len(made) == 1 else made, **options)

    return make


def pair(forward: Make, backward: Make | None = None, **options: Any) -> Make:
    def make(k: Any) -> Any:
        turned = {} if backward is None else {"backward_layer": backward(k)}
        return k.layers.Bidirectional(forward(k), **turned, **options)

    return make


def doubled(inner: Make) -> Make:
    """Twice the first output of a layer, and its states as they are."""

    def make(k: Any) -> Any:
        made, twice = inner(k), k.layers.Rescaling(2.0)

        def call(x: Any, **options: Any) -> Any:
            first, *states = tensors(made(x, **options))
            return [twice(first), *states]

        return call

    return make


def around(wrapper: str, inner: Make, **options: Any) -> Make:
    return lambda k: getattr(k.layers, wrapper)(inner(k), **options)


def chained(*makes: Make) -> Make:
    """Layers one after the other, called as one."""

    def make(k: Any) -> Any:
        layers = [each(k) for each in makes]
        return lambda x: functools.reduce(lambda y, each: each(y), layers, x)

    return make


def embedding(vectors: Sequence[Sequence[float]]) -> Make:
    def make(k: Any) -> Any:
        fill = k.initializers.Constant(np.array(vectors, "float32"))
        return k.layers.Embedding(len(vectors), len(vectors[0]), embeddings_initializer=fill)

    return make


def without(name: str, inner: Make, **old: Any) -> Make:
    """A layer from its config, with entries that older versions wrote."""

    def make(k: Any) -> Any:
        return getattr(k.layers, name).from_config({**inner(k).get_config(), **old})

    return make


def tensors(value: Any) -> list[Any]:
    """All tensors in nested lists, in order."""
    if isinstance(value, (list, tuple)):
        return [t for entry in value for t in tensors(entry)]
    return [value]


def counted(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


def marks(*rows: str) -> np.ndarray:
    """A mask: 1 where a step counts."""
    return np.array([[step == "1" for step in row] for row in rows])


@dataclass(frozen=True)
class Known:
    """What a layer makes of ``x``: ``ys`` at the last of so many calls."""

    make: Make
    x: np.ndarray
    ys: Sequence[Any]
    atol: float = PRINTED
    mask: np.ndarray | None = None
    state: Sequence[np.ndarray] = ()
    calls: int = 1
    streams: bool = True
    resets: Sequence[str] = tuple(FRAMEWORKS)
    only: Sequence[str] = tuple(FRAMEWORKS)


def known(make: Make, x: np.ndarray, *ys: Any, **others: Any) -> Known:
    return Known(make, x, [np.array(y, "float64") for y in ys], **others)


KERAS_3 = ("keras3",)
TF_KERAS = ("tf_keras",)


def reset(model: Any) -> None:
    """Keras 3 and tf_keras: zeros for all states that a model keeps."""
    for each in model.layers:
        if getattr(each, "stateful", False):
            (each.reset_state if hasattr(each, "reset_state") else each.reset_states)()


def assert_known(arrays: Sequence[np.ndarray], row: Known) -> None:
    assert len(arrays) == len(row.ys)
    for array, y in zip(arrays, row.ys, strict=True):
        assert array.shape == y.shape
        np.testing.assert_allclose(array, y, atol=row.atol, rtol=0)


def assert_near(ours: Any, theirs: Any) -> None:
    """Off by rounding alone: 16 units in the last place of the largest value."""
    ours, theirs = flat(ours), flat(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        atol = 16 * float(np.finfo("float32").eps) * max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def assert_case(model: Any, xs: list[np.ndarray], row: Known) -> list[np.ndarray]:
    """The framework's numbers are the printed ones, and npylstm's are both."""
    theirs = run(model, xs)
    assert_known(theirs, row)
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, theirs)])
    for backend in BACKENDS:
        y = Model(spec, backend).predict(xs if len(xs) > 1 else xs[0])
        assert_known(flat(y), row)
    return theirs


frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)

DOT, CONCAT = layer("Attention"), layer("Attention", score_mode="concat")
ADDED = layer("AdditiveAttention")


def sequential(*makes: Make, shape: tuple[int | None, ...] = (3, 4), **options: Any) -> Make:
    """A model of layers one after the other."""
    return lambda k: k.Sequential([k.Input(shape, **options), *(make(k) for make in makes)])


def model_of(call: Callable[..., Any], inputs: list[Any]) -> Make:
    """A model of what ``call(k, *inputs)`` makes; ``inputs`` are the options of each."""

    def make(k: Any) -> Any:
        xs = [k.Input(**options) for options in inputs]
        ys = tensors(call(k, *xs))
        return k.Model(xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0])

    return make


def functional(
    call: Callable[..., Any], *shapes: tuple[int | None, ...], dtype: str = "float32"
) -> Make:
    return model_of(call, [{"shape": shape, "dtype": dtype} for shape in shapes])


def fixed(call: Callable[..., Any], *shapes: tuple[int, ...]) -> Make:
    """The same with the batch in the shapes."""
    return model_of(call, [{"batch_shape": shape} for shape in shapes])


def plain(make: Make, masked: bool = False) -> Callable[..., Any]:
    """A layer on its inputs, one by one; ``masked``: where they are zero they do not count."""

    def call(k: Any, *xs: Any) -> Any:
        return make(k)(*((k.layers.Masking()(x) for x in xs) if masked else xs))

    return call


def begun(make: Make, masked: bool = False) -> Callable[..., Any]:
    """A layer whose states are inputs."""

    def call(k: Any, x: Any, *states: Any) -> Any:
        x = k.layers.Masking()(x) if masked else x
        return make(k)(x, initial_state=list(states) if len(states) > 1 else states[0])

    return call


def heads_of(*args: int, **options: Any) -> Make:
    return layer("MultiHeadAttention", *args, **options)


def masked_heads(**options: Any) -> Callable[..., Any]:
    """Queries and values from embeddings that mask."""

    def call(k: Any, query: Any, value: Any) -> Any:
        query = k.layers.Embedding(9, 8, mask_zero=True)(query)
        value = k.layers.Embedding(9, 8, mask_zero=True)(value)
        return heads_of(2, 2)(k)(query, value, **options)

    return call


def timed(inner: Make) -> Make:
    return around("TimeDistributed", inner)


SEQUENCES: dict[str, Any] = {"return_sequences": True}
IDS: dict[str, Any] = {"dtype": "int32"}
MASKING, SOFTMAX = layer("Masking"), layer("Dense", 5, activation="softmax")


def weighted(model: Any, seed: int = 1) -> Any:
    """All weights set; variances are positive."""
    randomise(model, seed)
    weights = zip(model.weights, model.get_weights(), strict=True)
    model.set_weights([np.abs(a) if "variance" in v.name else a for v, a in weights])
    return model
