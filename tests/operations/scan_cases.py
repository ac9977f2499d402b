"""Cases of graphs that run at every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from operations.case import MAJOR, STATE, Case, case

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.body import Body, Call
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.scan import Scan
from npylstm.ops.shaping import Concatenate

__all__ = ["CASES"]

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def elman(inputs: tuple[str, ...] = ("x", "h"), *more: Call) -> Body:
    """``h = tanh(x W + b + h U)``; it returns twice ``h`` of every step, too."""
    return Body(
        inputs,
        (("W", Dense(3, 4)), ("U", Dense(4, 4, use_bias=False)), ("sum", Arithmetic("add")),
         ("tanh", ActivationLayer(Activation("tanh"))), ("twice", Arithmetic("multiply", 2.0))),
        (Call("W", ("x",), ("W",)), Call("U", ("h",), ("U",)), Call("sum", ("W", "U"), ("sum",)),
         Call("tanh", ("sum",), ("new",)), Call("twice", ("new",), ("y",)), *more),
        ("new", "y"),
    )  # fmt: skip


def elman_of(weights: Weights, x: Array, *initial: Array) -> tuple[Array, Array]:
    h = initial[0] if initial else np.zeros((x.shape[1], 4))
    ys = np.zeros((*x.shape[:2], 4))
    for t, now in enumerate(x):
        h = np.tanh(now @ weights["W/kernel"] + weights["W/bias"] + h @ weights["U/kernel"])
        ys[t] = 2 * h
    return ys, h


def exchanged() -> Body:
    """Two states that change places, and a constant that is added to one."""
    return Body(
        ("x", "a", "b", "k"),
        (("plus", Arithmetic("add")), ("both", Concatenate(1))),
        (Call("plus", ("x", "b"), ("n",)), Call("plus", ("n", "k"), ("new",)),
         Call("both", ("new", "a"), ("y",))),
        ("new", "a", "y"),
    )  # fmt: skip


def exchanged_of(weights: Weights, x: Array, a: Array, b: Array, k: Array) -> tuple[Array, ...]:
    ys = []
    for now in x:
        a, b = now + b + k, a
        ys.append(np.concatenate([a, b], 1))
    return np.stack(ys), a, b


def remembered() -> Body:
    """A sum, and the sum before, which only the output reads."""
    return Body(
        ("x", "sum", "before"),
        (("plus", Arithmetic("add")), ("less", Arithmetic("subtract")),
         ("twice", Arithmetic("multiply", 2.0))),
        (Call("plus", ("sum", "x"), ("new",)), Call("less", ("new", "before"), ("y",)),
         Call("twice", ("new",), ("old",))),
        ("new", "old", "y"),
    )  # fmt: skip


def remembered_of(weights: Weights, x: Array, total: Array, before: Array) -> tuple[Array, ...]:
    ys = []
    for now in x:
        total = total + now
        ys.append(total - before)
        before = 2 * total
    return np.stack(ys), total, before


def repeated() -> Body:
    """``h = tanh(h U)``, without a sequence."""
    return Body(
        ("h",),
        (("U", Dense(4, 4)), ("tanh", ActivationLayer(Activation("tanh")))),
        (Call("U", ("h",), ("U",)), Call("tanh", ("U",), ("new",))),
        ("new",),
    )


def repeated_of(weights: Weights, h: Array) -> Array:
    for _ in range(3):
        h = np.tanh(h @ weights["U/kernel"] + weights["U/bias"])
    return h


def cases() -> Iterator[Case]:
    yield case(Scan(elman(), 1, 1, ((4,),)), MAJOR, oracle=elman_of, note="carried")
    yield case(Scan(elman(), 1, 1, ((4,),)), MAJOR, STATE, oracle=elman_of, note="begins")
    given = Scan(exchanged(), 1, 2)
    two = ("batch", 3)
    yield case(given, MAJOR, two, two, two, oracle=exchanged_of, note="two-states")
    both = Scan(remembered(), 1, 2, ((3,), (3,)))
    yield case(both, MAJOR, two, two, oracle=remembered_of, note="a-state-that-few-outputs-read")
    yield case(Scan(repeated(), 0, 1, steps=3), STATE, oracle=repeated_of, note="no-sequence")
    scores = Body(
        ("x", "all"),
        (("of", Reduce("mean", (0,))), ("minus", Arithmetic("subtract"))),
        (Call("of", ("all",), ("m",)), Call("minus", ("x", "m"), ("y",))),
        ("y",),
    )
    yield case(
        Scan(scores, 1, 0), MAJOR, MAJOR, note="no-state",
        oracle=lambda weights, x, every: x - every.mean(0),
    )  # fmt: skip


CASES = [*cases()]
