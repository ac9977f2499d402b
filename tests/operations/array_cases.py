"""Cases of array operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from operations.case import FLAT, MAJOR, MASK, NESTED, SEQUENCE, Case, case, of

from npylstm.ops.arithmetic import Arithmetic, Where

__all__ = ["CASES"]

Array = np.ndarray[Any, Any]


def each(function: Callable[..., float]) -> Callable[..., Any]:
    """An oracle that calls a function of Python's numbers for every element."""

    def compute(*inputs: Array) -> Array:
        arrays = np.broadcast_arrays(*inputs)
        numbers = [a.reshape(-1).tolist() for a in arrays]
        return np.array([*map(function, *numbers)], float).reshape(arrays[0].shape)

    return of(compute)


def arithmetic() -> Iterator[Case]:
    for name, function in {
        "mod": lambda a, b: a % b, "fmod": math.fmod, "floor_divide": lambda a, b: a // b,
        "atan2": math.atan2, "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b,
        "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
        "equal": lambda a, b: a == b, "not_equal": lambda a, b: a != b,
        "logical_and": lambda a, b: bool(a and b), "logical_or": lambda a, b: bool(a or b),
        "logical_xor": lambda a, b: bool(a) != bool(b),
    }.items():  # fmt: skip
        yield case(Arithmetic(name), SEQUENCE, SEQUENCE, oracle=each(function))
        if (
            "logical" in name or "equal" in name
        ):  # of random numbers no two are equal, and none is zero
            ids = {"masks": (0, 1), "note": f"{name}-01"}
            yield case(Arithmetic(name), SEQUENCE, SEQUENCE, oracle=each(function), **ids)
    yield case(Arithmetic("greater", 0.25), MAJOR, oracle=each(lambda x: x > 0.25))
    yield case(Arithmetic("less", 0.25, True), SEQUENCE, oracle=each(lambda x: x > 0.25))
    yield case(Arithmetic("mod", -0.7), SEQUENCE, oracle=each(lambda x: x % -0.7))
    yield case(Arithmetic("equal"), SEQUENCE, ("batch", 1, 3), masks=(0, 1), note="equal-broadcast")
    either = each(lambda c, x, y: x if c else y)
    bits = {"masks": (0,)}
    yield case(Where(), SEQUENCE, SEQUENCE, SEQUENCE, oracle=either, **bits)
    yield case(Where(), ("batch", "steps", 1), SEQUENCE, (3,), oracle=either, note="two", **bits)
    yield case(Where(), FLAT, MAJOR, (), oracle=either, note="time_major", **bits)
    yield case(Where(), SEQUENCE, SEQUENCE, SEQUENCE, oracle=either, note="numbers")
    yield case(Where(x=2.5), MASK, MASK, oracle=each(lambda c, y: 2.5 if c else y), **bits)
    yield case(Where(y=-1.5), NESTED, (3,), oracle=each(lambda c, x: x if c else -1.5), **bits)
    yield case(Where(1.0, 0.5), SEQUENCE, oracle=each(lambda c: 1.0 if c else 0.5), **bits)


CASES: tuple[Case, ...] = (*arithmetic(),)
