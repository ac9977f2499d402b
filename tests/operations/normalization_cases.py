"""Cases of normalization by statistics of groups, of neighbours, and without a mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from operations.case import FIRST, FLAT, MAJOR, NESTED, SEQUENCE, Case, Refused, case, of

from npylstm.ops.group_normalization import GroupNormalization, LocalResponseNormalization
from npylstm.ops.normalization import RMSNormalization, UnitNormalization

__all__ = ["CASES", "REFUSED"]

Array = np.ndarray[Any, Any]


def by_group(layer: GroupNormalization) -> Callable[..., Any]:
    def compute(weights: Mapping[str, Array], x: Array) -> Array:
        y = np.zeros(x.shape)
        each = layer.features // layer.groups
        for sample in range(len(x)):
            for feature in range(layer.features):
                first = feature // each * each
                group = x[sample].take(range(first, first + each), (layer.axis % x.ndim) - 1)
                at = (sample, *[slice(None)] * ((layer.axis % x.ndim) - 1), feature)
                value = (x[at] - group.mean()) / math.sqrt(group.var() + layer.epsilon)
                if layer.scale:
                    value = value * weights["gamma"][feature]
                y[at] = value + (weights["beta"][feature] if layer.center else 0)
        return y

    return compute


def by_root(layer: RMSNormalization) -> Callable[..., Any]:
    def compute(weights: Mapping[str, Array], x: Array) -> Array:
        y = np.zeros(x.shape)
        for at in np.ndindex(*x.shape[: -len(layer.shape)]):
            square = math.fsum(v * v for v in x[at].reshape(-1)) / x[at].size
            y[at] = x[at] / math.sqrt(square + layer.epsilon) * weights.get("gamma", 1.0)
        return y

    return compute


def by_neighbours(layer: LocalResponseNormalization) -> Callable[..., Any]:
    def row(values: Array) -> list[float]:
        made, n = [], layer.before + 1 + layer.after
        for k, value in enumerate(values):
            around = values[max(k - layer.before, 0) : k + layer.after + 1]
            total = math.fsum(v * v for v in around)
            made.append(value / (layer.bias + layer.alpha / n * total) ** layer.beta)
        return made

    return of(lambda x: np.apply_along_axis(row, layer.axis, x))


def cases() -> Iterator[Case]:
    for shape, layer in (
        (("batch", "steps", 6), GroupNormalization(6, 2, -1, 1e-3)),
        (("batch", 6, "steps"), GroupNormalization(6, 3, 1, 1e-3, scale=False)),
        (("batch", 4, "steps", 2), GroupNormalization(4, 4, 1, 1e-3, center=False)),
        (("batch", 6), GroupNormalization(6, 2, 1, 1e-2)),
        (FIRST, GroupNormalization(3, 3, 1, 1e-3)),
        (SEQUENCE, GroupNormalization(3, 1, 2, 1e-3)),
        (NESTED, GroupNormalization(3, 3, -1, 1e-3)),
    ):
        yield case(layer, shape, oracle=by_group(layer))  # type: ignore[arg-type]
    for rms, shape in (
        (RMSNormalization((3,), 1e-3), SEQUENCE),
        (RMSNormalization((3,), 1e-3, scale=False), MAJOR),
        (RMSNormalization((2, 3), 1e-3), ("batch", "steps", 2, 3)),
    ):
        yield case(rms, shape, oracle=by_root(rms))
    for lrn, shape in (
        (LocalResponseNormalization(1, 1, 0.5), SEQUENCE),
        (LocalResponseNormalization(2, 1, 0.5, 0.5, 2.0, 1), ("batch", 5, "steps")),
        (LocalResponseNormalization(0, 2, 1.5, 1.0, 0.5, 1), FLAT),
    ):
        yield case(lrn, shape, oracle=by_neighbours(lrn))
    for p, order in ((1.0, 1), (3.0, 3)):
        norm = (lambda n: of(lambda x: x / np.linalg.norm(x, n, axis=2, keepdims=True)))(order)
        yield case(UnitNormalization((-1,), p=p), SEQUENCE, oracle=norm)


CASES: tuple[Case, ...] = (*cases(),)

REFUSED: tuple[Refused, ...] = (
    Refused(GroupNormalization(3, 1, -1, 1e-3), (MAJOR,)),
    Refused(LocalResponseNormalization(1, 1, axis=0), (SEQUENCE,)),
)
