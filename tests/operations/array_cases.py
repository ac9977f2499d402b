"""Cases of array operations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from operations.case import FLAT, MAJOR, MASK, NESTED, SEQUENCE, Case, Refused, case, of

from npylstm.ops.arithmetic import Arithmetic, Reduce, Where
from npylstm.ops.gathering import OneHot, ScatterElements, Take, TakeAlongAxis
from npylstm.ops.gathering_nd import GatherND, ScatterND
from npylstm.ops.indexing import Pad, Slice, Trilu
from npylstm.ops.products import Einsum
from npylstm.ops.shapes import Shape
from npylstm.ops.sorting import ArgReduce, Cumulative, TopK

__all__ = ["CASES", "REFUSED"]

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
    masked = of(lambda c: np.where(c != 0, -np.inf, 0.0))
    yield case(Where(-math.inf, 0.0), SEQUENCE, oracle=masked, **bits)
    yield case(Where(1.0, 0.5), SEQUENCE, oracle=each(lambda c: 1.0 if c else 0.5), **bits)


REDUCTIONS: dict[str, Callable[[list[float]], float]] = {
    "prod": math.prod,
    "l1": lambda v: math.fsum(map(abs, v)),
    "sum_square": lambda v: math.fsum(x * x for x in v),
    "log_sum": lambda v: math.log(math.fsum(v)),
    "log_sum_exp": lambda v: math.log(math.fsum(map(math.exp, v))),
    "var": statistics.pvariance,
    "std": statistics.pstdev,
    "any": lambda v: float(any(v)),
    "all": lambda v: float(all(v)),
}


def along(axes: tuple[int, ...], function: Callable[[list[float]], float]) -> Callable[..., Any]:
    """An oracle that combines the entries along axes, which it keeps."""

    def compute(x: Array) -> Array:
        kept = [k for k in range(x.ndim) if k not in axes]
        made = np.zeros([1 if k in axes else n for k, n in enumerate(x.shape)])
        for at in np.ndindex(*(x.shape[k] for k in kept)):
            where: list[Any] = [slice(None)] * x.ndim
            for k, n in zip(kept, at, strict=True):
                where[k] = n
            entries = x[tuple(where)].reshape(-1).tolist()
            made[tuple(0 if isinstance(n, slice) else n for n in where)] = function(entries)
        return made

    return of(compute)


def reductions() -> Iterator[Case]:
    for name, function in REDUCTIONS.items():
        options = {"positive": name == "log_sum", "masks": (0,) if name in ("any", "all") else ()}
        one, two = (along(axes, function) for axes in ((2,), (1, 3)))
        flat = (lambda oracle: lambda w, x: oracle(w, x)[..., 0])(one)
        yield case(Reduce(name, (2,)), SEQUENCE, oracle=flat, **options)
        yield case(Reduce(name, (1, 3), True), NESTED, oracle=two, **options)
    yield case(Reduce("std", (1,), True, 1), SEQUENCE, oracle=along((1,), statistics.stdev))
    yield case(Reduce("var", (0,), True, 1), MAJOR, oracle=along((0,), statistics.variance))
    yield case(Reduce("var", (2,), True, 3), SEQUENCE, note="nothing-left")
    yield case(Reduce("any", ()), SEQUENCE, masks=(0,), note="any-none")


def rows(axis: int, function: Callable[[list[float]], list[float]]) -> Callable[..., Any]:
    """An oracle that computes every row along an axis from this row alone."""
    return of(lambda x: np.apply_along_axis(lambda row: np.array(function(row.tolist())), axis, x))


def extreme(of_all: Callable[..., float], last: bool = False) -> Callable[[list[float]], float]:
    def find(row: list[float]) -> float:
        places = [k for k, value in enumerate(row) if value == of_all(row)]
        return places[-1 if last else 0]

    return find


def ranked(k: int | None, largest: bool, indices: bool) -> Callable[[list[float]], list[float]]:
    def rank(row: list[float]) -> list[float]:
        sign = -1 if largest else 1
        order = sorted(range(len(row)), key=lambda n: (sign * row[n], n))[:k]
        return [*map(float, order)] if indices else [row[n] for n in order]

    return rank


def running(function: Callable[[list[float]], float], exclusive: bool, reverse: bool) -> Any:
    def run(row: list[float]) -> list[float]:
        row = row[::-1] if reverse else row
        made = [function(row[: k + 1 - exclusive]) for k in range(len(row))]
        return made[::-1] if reverse else made

    return run


def ordered() -> Iterator[Case]:
    for name, of_all in (("max", max), ("min", min)):
        yield case(ArgReduce(name, 1), SEQUENCE, oracle=rows(1, extreme(of_all)))
        yield case(ArgReduce(name, 2), SEQUENCE, oracle=rows(2, extreme(of_all)))
        yield case(ArgReduce(name, 0, True), MAJOR, oracle=along((0,), extreme(of_all)))
        ties = ArgReduce(name, 1, last=True)
        yield case(ties, SEQUENCE, masks=(0,), oracle=rows(1, extreme(of_all, True)))
        tensorflow = ArgReduce(name, 1, skips_nan=True, orders_zeros=True)
        yield case(tensorflow, SEQUENCE, oracle=rows(1, extreme(of_all)))
    yield case(ArgReduce("max", 1), SEQUENCE, masks=(0,), oracle=rows(1, extreme(max)), note="ties")
    for axis, k, largest, indices in (
        (2, 2, True, False), (2, 2, True, True), (1, 3, False, False), (1, 3, False, True),
        (2, None, True, False), (1, None, False, True), (1, None, True, True),
    ):  # fmt: skip
        oracle = rows(axis, ranked(k, largest, indices))
        yield case(TopK(axis, k, largest, indices), SEQUENCE, oracle=oracle)
    yield case(TopK(0, 2), MAJOR, oracle=rows(0, ranked(2, True, False)))
    for largest in (True, False):
        oracle = rows(1, ranked(None, largest, True))
        ties = TopK(1, None, largest, True)
        yield case(ties, SEQUENCE, masks=(0,), oracle=oracle, note=f"ties-{largest}")
    for name, function in {
        "sum": math.fsum, "prod": math.prod, "max": max, "min": min,
        "log_sum_exp": REDUCTIONS["log_sum_exp"],
    }.items():  # fmt: skip
        for exclusive in (False, True)[: 1 + (name in ("sum", "prod"))]:
            for reverse in (False, True):
                oracle = rows(1, running(function, exclusive, reverse))
                yield case(Cumulative(name, 1, exclusive, reverse), SEQUENCE, oracle=oracle)
    yield case(Cumulative("sum", 2), SEQUENCE, oracle=rows(2, running(math.fsum, False, False)))
    yield case(Cumulative("sum", 0), MAJOR, oracle=rows(0, running(math.fsum, False, False)))


def looked_up(axis: int, batch_dims: int = 0) -> Callable[..., Any]:
    """Take entries one by one."""

    def compute(x: Array, at: Array) -> Array:
        rows, front = x.shape[:batch_dims], x.shape[batch_dims:axis]
        inner, behind = at.shape[batch_dims:], x.shape[axis + 1 :]
        made = np.zeros((*rows, *front, *inner, *behind))
        for place in np.ndindex(*made.shape):
            row, rest = place[:batch_dims], place[batch_dims:]
            before, rest = rest[: len(front)], rest[len(front) :]
            index, rest = rest[: len(inner)], rest[len(inner) :]
            made[place] = x[(*row, *before, int(at[(*row, *index)]), *rest)]
        return made

    return of(compute)


def gathered(axis: int) -> Callable[..., Any]:
    def compute(x: Array, at: Array) -> Array:
        made = np.zeros(at.shape)
        for place in np.ndindex(*at.shape):
            made[place] = x[(*place[:axis], int(at[place]), *place[axis + 1 :])]
        return made

    return of(compute)


def scattered(axis: int, mode: str) -> Callable[..., Any]:
    def compute(x: Array, at: Array, updates: Array) -> Array:
        made = x.copy()
        for place in np.ndindex(*at.shape):
            target = (*place[:axis], int(at[place]), *place[axis + 1 :])
            old, new = made[target], updates[place]
            made[target] = {
                "set": new, "add": old + new, "multiply": old * new,
                "maximum": max(old, new), "minimum": min(old, new),
            }[mode]  # fmt: skip
        return made

    return of(compute)


def indexed() -> Iterator[Case]:
    yield case(Take(2, (2, 0, -1, 0)), SEQUENCE, oracle=of(lambda x: x[..., [2, 0, -1, 0]]))
    yield case(Take(1, (3, -2)), SEQUENCE, oracle=of(lambda x: x[:, [3, -2]]))
    yield case(Take(0, (1,)), MAJOR, oracle=of(lambda x: x[[1]]))
    ids: dict[str, Any] = {"integer": {1: (-3, 3)}}
    yield case(Take(0), (3, 4), MASK, oracle=looked_up(0), note="table", **ids)
    yield case(Take(2), SEQUENCE, (2, 4), oracle=looked_up(2), note="same", **ids)
    yield case(Take(1), (2, 3, "steps"), ("batch", 2), oracle=looked_up(1), note="new", **ids)
    yield case(Take(2), SEQUENCE, (), oracle=looked_up(2), note="scalar", **ids)
    row = Take(2, batch_dims=1)
    yield case(row, SEQUENCE, ("batch", 2), oracle=looked_up(2, 1), note="own", **ids)
    step = Take(2, batch_dims=2)
    yield case(step, SEQUENCE, ("batch", "steps", 4), oracle=looked_up(2, 2), note="step", **ids)
    each = Take(1, batch_dims=1)
    yield case(each, ("batch", 3, "other"), MASK, oracle=looked_up(1, 1), note="each", **ids)
    yield case(each, ("batch", 3, 2), ("batch",), oracle=looked_up(1, 1), note="one", **ids)
    last = Take(3, batch_dims=1)
    yield case(last, NESTED, ("batch", 2), oracle=looked_up(3, 1), note="late", **ids)
    wide: Shape = ("batch", "steps", 4)
    yield case(TakeAlongAxis(2), SEQUENCE, wide, oracle=gathered(2), **ids)
    yield case(TakeAlongAxis(1), ("batch", 3, 2), ("batch", "steps", 2), oracle=gathered(1), **ids)
    yield case(TakeAlongAxis(0), (3, 3), (5, 2), oracle=gathered(0), note="fewer", **ids)
    yield case(TakeAlongAxis(0), (4, "batch"), ("steps", "batch"), oracle=gathered(0), **ids)
    for mode in ("set", "add", "multiply", "maximum", "minimum"):
        # With "set" no index may occur twice: the order of the updates would matter.
        one: Shape = ("batch", "steps", 1 if mode == "set" else 4)
        oracle = scattered(2, mode)
        yield case(ScatterElements(2, mode), SEQUENCE, one, one, oracle=oracle, **ids)
    some: Shape = ("batch", 4, 2)
    add = ScatterElements(1, "add")
    yield case(add, ("batch", 3, 2), some, some, oracle=scattered(1, "add"), note="few", **ids)
    few = {"integer": {1: (-3, 3)}, "note": "fewer", "oracle": scattered(1, "add")}
    yield case(add, ("batch", 3, 5), some, some, **few)

    def hot(depth: int, on: float, off: float, negative: bool) -> Callable[..., Any]:
        def compute(x: float) -> list[float]:
            at = x + depth if negative and x < 0 else x
            return [on if at == k else off for k in range(depth)]

        return lambda w, x: np.array([[compute(v) for v in row] for row in x.tolist()])

    some_ids: dict[str, Any] = {"integer": {0: (-4, 5)}}
    yield case(OneHot(3), MASK, oracle=hot(3, 1, 0, False), **some_ids)
    yield case(OneHot(3, -1, 2.5, -1.0, True), MASK, oracle=hot(3, 2.5, -1, True), **some_ids)
    moved = of(lambda x: np.moveaxis(hot(4, 1, 0, False)(None, x), -1, 1))
    yield case(OneHot(4, 1), MASK, oracle=moved, **some_ids)
    yield case(OneHot(4, 0), ("steps", "batch"), note="first", **some_ids)

    def kept(condition: Callable[[Array, Array], Array]) -> Callable[..., Any]:
        return of(lambda x: x * condition(*np.indices(x.shape)[-2:]))

    yield case(Trilu(), ("batch", 4, 3), oracle=kept(lambda i, j: j <= i))
    yield case(Trilu(True), ("batch", "steps", 4, 3), oracle=kept(lambda i, j: j >= i))
    yield case(Trilu(True, 1), SEQUENCE, oracle=kept(lambda i, j: j >= i + 1))
    yield case(Trilu(False, -1), SEQUENCE, oracle=kept(lambda i, j: j <= i - 1))


def gathered_nd(batch_dims: int) -> Callable[..., Any]:
    def compute(x: Array, at: Array) -> Array:
        made = [x[(*k[:batch_dims], *map(int, at[k]))] for k in np.ndindex(*at.shape[:-1])]
        behind = x.shape[batch_dims + at.shape[-1] :]
        return np.array(made).reshape(at.shape[:-1] + behind)

    return of(compute)


def scattered_nd(mode: str) -> Callable[..., Any]:
    def compute(x: Array, at: Array, updates: Array) -> Array:
        made = x.copy()
        for k in np.ndindex(*at.shape[:-1]):
            place = tuple(map(int, at[k]))
            old, new = made[place], updates[k]
            made[place] = {
                "set": new, "add": old + new, "multiply": old * new,
                "maximum": np.maximum(old, new), "minimum": np.minimum(old, new),
            }[mode]  # fmt: skip
        return made

    return of(compute)


def indexed_on_several_axes() -> Iterator[Case]:
    ids: dict[str, Any] = {"integer": {1: (-3, 3)}}
    last_steps: Shape = ("batch", 1)  # x[sample, length - 1], the usual use
    yield case(GatherND(1), SEQUENCE, last_steps, oracle=gathered_nd(1), note="step", **ids)
    each: Shape = ("batch", "other", 2)
    yield case(GatherND(1), SEQUENCE, each, oracle=gathered_nd(1), note="entry", **ids)
    table: Shape = (3, 4, 2)
    yield case(GatherND(), table, ("batch", "steps", 2), oracle=gathered_nd(0), **ids)
    yield case(
        GatherND(), table, ("batch", 3), oracle=gathered_nd(0), note="all", integer={1: (-2, 2)}
    )
    yield case(GatherND(), (3, "batch", 2), (5, 1), oracle=gathered_nd(0), note="rows", **ids)
    both: Shape = ("batch", "steps", 1)
    yield case(GatherND(2), SEQUENCE, both, oracle=gathered_nd(2), note="both", **ids)
    for mode in ("set", "add", "multiply", "maximum", "minimum"):
        count = 1 if mode == "set" else 6  # of several to one place the last wins
        shapes: tuple[Shape, ...] = ((4, 3, "batch"), (count, 2), (count, "batch"))
        yield case(ScatterND(mode), *shapes, oracle=scattered_nd(mode), **ids)
    rows: tuple[Shape, ...] = ((4, "batch", "steps"), (2, 3, 1), (2, 3, "batch", "steps"))
    yield case(ScatterND("add"), *rows, oracle=scattered_nd("add"), note="rows", **ids)


def padded(axis: int, before: int, after: int, mode: str, value: float) -> Callable[..., Any]:
    """Pad every row entry by entry."""

    def pad(row: list[float]) -> list[float]:
        n = len(row)
        made = []
        for k in range(-before, n + after):
            if 0 <= k < n:
                made.append(row[k])
            elif mode == "constant":
                made.append(value)
            elif mode == "edge":
                made.append(row[0 if k < 0 else n - 1])
            else:
                made.append(row[k % n] if mode == "wrap" else row[-k if k < 0 else 2 * n - 2 - k])
        return made

    return rows(axis, pad)


def sliced() -> Iterator[Case]:
    for start, stop, step in (
        (None, None, -1), (None, None, -2), (-1, None, -1), (-2, 0, -1), (3, 1, -1), (-1, -4, -2),
        (None, 2, 1), (-3, -1, 1),
    ):  # fmt: skip
        of_all = (lambda *b: of(lambda x: x[:, slice(*b)]))(start, stop, step)
        note = f"{start}:{stop}:{step}"
        yield case(Slice(1, start, stop, step), SEQUENCE, oracle=of_all, note=note)
    yield case(Slice(2, None, None, -1), SEQUENCE, oracle=of(lambda x: x[..., ::-1]), note="back")
    for mode, before, after, value in (
        ("constant", 2, 1, 0.75), ("constant", -1, 2, -1.5), ("constant", 0, -2, 0.0),
        ("reflect", 2, 1, 0.0), ("reflect", 0, 3, 0.0), ("reflect", -1, -1, 0.0),
        ("edge", 2, 3, 0.0), ("wrap", 1, 2, 0.0), ("wrap", 4, 0, 0.0),
    ):  # fmt: skip
        oracle = padded(1, before, after, mode, value)
        yield case(Pad(1, before, after, mode, value), SEQUENCE, oracle=oracle)
    yield case(Pad(0, 1, 1, "reflect"), MAJOR, oracle=padded(0, 1, 1, "reflect", 0))
    yield case(Pad(2, 2, 2, "reflect"), SEQUENCE, oracle=padded(2, 2, 2, "reflect", 0))
    yield case(Pad(2, 0, -1), SEQUENCE, oracle=of(lambda x: x[..., :-1]), note="crops")


def summed(equation: str) -> Callable[..., Any]:
    """Evaluate an equation for every value of every letter."""
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")

    def compute(*arrays: Array) -> Array:
        sizes = {
            c: n
            for t, x in zip(terms, arrays, strict=True)
            for c, n in zip(t, x.shape, strict=True)
        }
        made = np.zeros([sizes[c] for c in output])
        for values in np.ndindex(*sizes.values()):
            at = dict(zip(sizes, values, strict=True))
            factors = [x[tuple(at[c] for c in t)] for t, x in zip(terms, arrays, strict=True)]
            made[tuple(at[c] for c in output)] += math.prod(factors)
        return made

    return of(compute)


def products() -> Iterator[Case]:
    value: Shape = ("batch", "other", 3)
    for equation, shapes in {
        "btn,bsn->bts": (SEQUENCE, value),
        "bsn,nk->bsk": (SEQUENCE, (3, 4)),
        "bsn->bns": (SEQUENCE,),
        "bsn->bn": (SEQUENCE,),
        "bsn,bsn->bs": (SEQUENCE, SEQUENCE),
        "sbn,bn->sb": (MAJOR, FLAT),
        "btn,nm,bsm->bts": (SEQUENCE, (3, 2), ("batch", "other", 2)),
        "bii->bi": (("batch", 3, 3),),
        "bt,bn->btn": (MASK, FLAT),
    }.items():
        yield case(Einsum(equation), *shapes, oracle=summed(equation), note=equation)
    implicit = summed("bsn,nk->bks")
    yield case(Einsum("bsn,nk"), SEQUENCE, (3, 4), oracle=implicit, note="implicit")
    any_axes = Einsum("...n, nk -> ...k")
    yield case(any_axes, NESTED, (3, 2), oracle=of(lambda x, w: x @ w), note="ellipsis")
    pairs = Einsum("b...n,...n->b...")
    own = of(lambda x, y: (x * y).sum(-1))
    yield case(pairs, NESTED, ("other", 3), oracle=own, note="aligned")
    yield case(Einsum("b...->b"), SEQUENCE, oracle=of(lambda x: x.sum((1, 2))), note="rest")


CASES: tuple[Case, ...] = (
    *arithmetic(),
    *reductions(),
    *ordered(),
    *products(),
    *indexed(),
    *indexed_on_several_axes(),
    *sliced(),
)

REFUSED: tuple[Refused, ...] = (
    Refused(ArgReduce("max", 0), (SEQUENCE,)),
    Refused(TopK(0), (SEQUENCE,)),
    Refused(Cumulative("sum", 0), (SEQUENCE,)),
    Refused(Take(0, (1, 0)), (SEQUENCE,)),
    Refused(Pad(0, 1, 1, "edge"), (SEQUENCE,)),
    Refused(Slice(0, None, None, -1), (SEQUENCE,)),
    Refused(Einsum("bsn->sn"), (SEQUENCE,)),
    Refused(Einsum("an,bn->ab"), (FLAT, FLAT), mixes=False),
    Refused(GatherND(), (SEQUENCE, (4, 2)), mixes=False, options={"integer": {1: (0, 3)}}),
    Refused(ScatterND(), (FLAT, (1, 1), (1, 3)), mixes=False),
    Refused(Take(1), (SEQUENCE, MASK), mixes=False),
    Refused(Trilu(), (("steps", "batch"),), mixes=False),
)
