"""Cases of windows over several axes: convolution, pooling, resizing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from operations.case import FIRST, MAJOR, OTHER, SEQUENCE, Case, Refused, case, of

from npylstm.activations import Activation
from npylstm.ops.convolution_nd import Convolution, ConvolutionTranspose
from npylstm.ops.pooling import AdaptivePool, Pool, SlidingWindows
from npylstm.ops.resizing import Resize, ReverseSequence
from npylstm.ops.shapes import Shape

__all__ = ["CASES", "REFUSED"]

Array = np.ndarray[Any, Any]

ONE: Shape = ("batch", "steps", 4)
IMAGE: Shape = ("batch", "steps", 6, 4)
FRONT: Shape = ("batch", 4, "steps", 6)  # channels first
VOLUME: Shape = ("batch", "steps", 4, 3, 2)


def channels_last(x: Array, layer: Any) -> Array:
    return np.moveaxis(x, 1, -1) if layer.channels_first else x


def channels_back(y: Array, layer: Any) -> Array:
    return np.moveaxis(y, -1, 1) if layer.channels_first else y


def places(layer: Any, axis: int, entries: int) -> tuple[list[list[int]], int, int]:
    """The entries that each window along an axis covers, and the padding before and after."""
    size, stride, gap = layer.size[axis], layer.stride[axis], layer.dilation[axis]
    before, after = layer.padding[2 * axis : 2 * axis + 2]
    span = (size - 1) * gap + 1
    if layer.same:
        total = max((math.ceil(entries / stride) - 1) * stride + span - entries, 0)
        before, after = total // 2, total - total // 2
        if layer.same == "lower":
            before, after = after, before
    made = []
    for first in itertools.count(-before, stride):
        fits = first + span <= entries + after
        if not fits and not (getattr(layer, "ceil", False) and first < entries):
            break
        if not fits and made and made[-1][0] + span >= entries + after:
            break  # the window before has reached the end
        made.append([first + k * gap for k in range(size)])
    return made, before, after


def convolved(layer: Convolution) -> Callable[..., Any]:
    def compute(weights: Mapping[str, Array], x: Array) -> Array:
        x, kernel = channels_last(x, layer), weights["kernel"]
        windows = [places(layer, k, n)[0] for k, n in enumerate(x.shape[1:-1])]
        y = np.zeros((len(x), *map(len, windows), layer.units))
        per, make = layer.features // layer.groups, layer.units // layer.groups
        for at in np.ndindex(*y.shape[1:]):
            unit, first = at[-1], at[-1] // make * per
            for tap in np.ndindex(*layer.size):
                source = [w[i][k] for w, i, k in zip(windows, at, tap, strict=False)]
                if all(0 <= s < n for s, n in zip(source, x.shape[1:], strict=False)):
                    row = x[(slice(None), *source)][:, first : first + per]
                    y[(slice(None), *at)] += row @ kernel[tap][:, unit]
        y += weights.get("bias", 0.0)
        y = np.tanh(y) if layer.activation.name == "tanh" else y
        return channels_back(y, layer)

    return compute


def spread(layer: ConvolutionTranspose) -> Callable[..., Any]:
    def compute(weights: Mapping[str, Array], x: Array) -> Array:
        x, kernel = channels_last(x, layer), weights["kernel"]
        sizes = [
            (n - 1) * layer.stride[k] + (layer.size[k] - 1) * layer.dilation[k] + 1
            + layer.output_padding[k] - sum(layer.padding[2 * k : 2 * k + 2])
            for k, n in enumerate(x.shape[1:-1])
        ]  # fmt: skip
        y = np.zeros((len(x), *sizes, layer.units))
        per, make = layer.features // layer.groups, layer.units // layer.groups
        for at in np.ndindex(*x.shape[1:-1]):
            for tap in np.ndindex(*layer.size):
                target = [
                    n * layer.stride[k] + tap[k] * layer.dilation[k] - layer.padding[2 * k]
                    for k, n in enumerate(at)
                ]
                if all(0 <= t < n for t, n in zip(target, sizes, strict=True)):
                    for unit in range(layer.units):
                        first = unit // make * per
                        row = x[(slice(None), *at)][:, first : first + per]
                        y[(slice(None), *target, unit)] += row @ kernel[tap][:, unit]
        return channels_back(y + weights.get("bias", 0.0), layer)

    return compute


def pooled(layer: Pool) -> Callable[..., Any]:
    def compute(x: Array) -> Array:
        x = channels_last(x, layer)
        axes = [places(layer, k, n) for k, n in enumerate(x.shape[1:-1])]
        sizes = x.shape[1:-1]
        y = np.zeros((len(x), *(len(windows) for windows, _, _ in axes), x.shape[-1]))
        for at in np.ndindex(*y.shape[1:-1]):
            sources = [*itertools.product(*(axes[k][0][i] for k, i in enumerate(at)))]
            inside = [s for s in sources if all(0 <= a < n for a, n in zip(s, sizes, strict=True))]
            around = [
                s for s in sources
                if all(-b <= a < n + c for a, n, (_, b, c) in zip(s, sizes, axes, strict=True))
            ]  # fmt: skip
            entries = np.array([x[(slice(None), *s)] for s in inside])
            if layer.operation == "max":
                made = entries.max(0)
            elif layer.operation == "lp":
                made = (np.abs(entries) ** layer.p).sum(0) ** (1 / layer.p)
            else:
                made = entries.sum(0)
            if layer.operation == "mean":
                made = made / len(around if layer.count_padding else inside)
            y[(slice(None), *at)] = made
        return channels_back(y, layer)

    return of(compute)


def adapted(layer: AdaptivePool) -> Callable[..., Any]:
    def compute(x: Array) -> Array:
        x = channels_last(x, layer)
        y = np.zeros((len(x), *layer.size, x.shape[-1]))
        for at in np.ndindex(*layer.size):
            part = [
                slice(math.floor(k * n / m), math.ceil((k + 1) * n / m))
                for k, n, m in zip(at, x.shape[1:], layer.size, strict=False)
            ]
            entries = x[(slice(None), *part)].reshape(len(x), -1, x.shape[-1])
            y[(slice(None), *at)] = entries.max(1) if layer.operation == "max" else entries.mean(1)
        return channels_back(y, layer)

    return of(compute)


def shape_of(layer: Any, axes: int) -> Shape:
    shape: Shape = {1: ONE, 2: IMAGE, 3: VOLUME}[axes]
    return (shape[0], shape[-1], *shape[1:-1]) if layer.channels_first else shape


def convolutions() -> Iterator[Case]:
    options: dict[str, Any]
    for size, options in (
        ((3,), {}),
        ((3,), {"padding": (2, 1), "stride": (2,), "channels_first": True}),
        ((2,), {"same": "lower"}),
        ((4,), {"same": "lower", "stride": (3,)}),
        ((4,), {"same": "upper", "stride": (3,)}),
        ((2, 3), {}),
        ((2, 3), {"stride": (2, 1), "padding": (1, 0, 2, 1)}),
        ((3, 2), {"dilation": (1, 3), "channels_first": True}),
        ((3, 2), {"groups": 2, "activation": Activation("tanh")}),
        ((1, 3), {"use_bias": False, "padding": (0, 0, 1, 1)}),  # nothing along the time
        ((2, 2), {"same": "upper", "stride": (1, 2), "channels_first": True}),
        ((2, 2, 1), {"stride": (1, 2, 1)}),
        ((2, 1, 2), {"padding": (1, 0, 0, 0, 0, 1), "groups": 2, "channels_first": True}),
    ):
        features = 2 if len(size) == 3 else 4
        layer = Convolution(features, 6, size, **options)
        yield case(layer, shape_of(layer, len(size)), oracle=convolved(layer))
    for size, options in (
        ((3,), {}),
        ((3,), {"stride": (2,), "padding": (1, 0), "output_padding": (1,)}),
        ((2,), {"stride": (3,), "channels_first": True, "use_bias": False}),
        ((2, 3), {"stride": (1, 2), "dilation": (2, 1), "padding": (0, 1, 1, 0)}),
        ((3, 2), {"groups": 2, "channels_first": True, "output_padding": (0, 1)}),
        ((2, 1, 2), {"stride": (2, 1, 1)}),
    ):
        features = 2 if len(size) == 3 else 4
        transposed = ConvolutionTranspose(features, 6, size, **options)
        yield case(transposed, shape_of(transposed, len(size)), oracle=spread(transposed))


def pools() -> Iterator[Case]:
    options: dict[str, Any]
    for operation, size, options in (
        ("max", (2,), {"stride": (2,)}),
        ("max", (2,), {"stride": (2,), "ceil": True}),
        ("max", (2,), {"stride": (3,), "ceil": True, "padding": (1, 1)}),
        ("max", (3,), {"stride": (2,), "ceil": True, "padding": (1, 1), "channels_first": True}),
        ("max", (2, 3), {"dilation": (2, 1), "padding": (1, 0, 1, 1)}),
        ("max", (2, 2), {"same": "upper", "stride": (2, 2)}),
        ("mean", (3, 2), {"stride": (2, 2), "padding": (1, 1, 0, 1)}),
        ("mean", (3, 2), {"stride": (2, 2), "padding": (1, 1, 0, 1), "count_padding": True}),
        ("mean", (3,), {"stride": (2,), "ceil": True, "padding": (1, 1), "count_padding": True}),
        ("mean", (4,), {"stride": (3,), "ceil": True}),
        ("mean", (4,), {"stride": (3,), "same": "lower"}),
        ("mean", (4,), {"stride": (3,), "same": "upper", "count_padding": True}),
        ("mean", (2, 1, 2), {"channels_first": True}),
        ("sum", (3, 2), {"padding": (1, 1, 0, 0)}),
        ("lp", (3,), {"stride": (2,)}),
        ("lp", (2, 2), {"p": 3.0, "padding": (0, 1, 0, 1)}),
        ("max", (1, 2), {}),
    ):
        layer = Pool(operation, size, **options)
        yield case(layer, shape_of(layer, len(size)), oracle=pooled(layer))
    for operation in ("max", "mean"):
        for size, first in (((1,), False), ((3,), True), ((2, 4), False), ((3, 1, 2), True)):
            adaptive = AdaptivePool(operation, size, first)
            yield case(adaptive, shape_of(adaptive, len(size)), oracle=adapted(adaptive))


def cubic(d: float, a: float) -> float:
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def interpolated(layer: Resize, count_of: Callable[[int], int]) -> Callable[..., Any]:
    """Interpolate output by output, with fractions."""

    def coordinate(k: int, n: int, m: int) -> Fraction:
        scale = Fraction(m, n) if layer.scale is None else Fraction(layer.scale)
        half = (k + Fraction(1, 2)) / scale - Fraction(1, 2)
        return {
            "half_pixel": half,
            "pytorch_half_pixel": half if m > 1 else Fraction(0),
            "half_pixel_symmetric": half + Fraction(n, 2) * (1 - m / (scale * n)),
            "align_corners": Fraction(k * (n - 1), m - 1) if m > 1 else Fraction(0),
            "asymmetric": k / scale,
        }[layer.coordinates]

    def row(values: Array) -> list[float]:
        n, m = len(values), count_of(len(values))
        made = []
        for k in range(m):
            at = coordinate(k, n, m)
            if layer.mode == "nearest":
                low = math.floor(at)
                up = {
                    "floor": False,
                    "ceil": at > low,
                    "round_prefer_floor": at - low > Fraction(1, 2),
                    "round_prefer_ceil": at - low >= Fraction(1, 2),
                }[layer.rounding]
                weights = {low + up: 1.0}
            else:
                kernel = (
                    (lambda d: cubic(d, layer.cubic_a))
                    if layer.mode == "cubic"
                    else lambda d: max(1 - abs(d), 0.0)
                )
                near = range(math.floor(at) - 2, math.floor(at) + 4)
                weights = {i: kernel(float(at - i)) for i in near}
            made.append(sum(w * values[min(max(i, 0), n - 1)] for i, w in weights.items()))
        return made

    return of(lambda x, *rest: np.apply_along_axis(row, layer.axis, x))


def resized() -> Iterator[Case]:
    for mode in ("nearest", "linear", "cubic"):
        for coordinates in (
            "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric",
        ):  # fmt: skip
            for size in (8, 3):
                layer = Resize(1, (size,), None, mode, coordinates)
                oracle = interpolated(layer, (lambda m: lambda n: m)(size))
                yield case(layer, SEQUENCE, oracle=oracle)
            layer = Resize(1, (), 1.5, mode, coordinates, "round_prefer_ceil")
            yield case(layer, SEQUENCE, oracle=interpolated(layer, lambda n: n * 3 // 2))
    for rounding in ("floor", "ceil", "round_prefer_ceil"):
        layer = Resize(1, (), 2.0, "nearest", "half_pixel", rounding)
        yield case(layer, SEQUENCE, oracle=interpolated(layer, lambda n: 2 * n))
    for mode, coordinates in (("nearest", "asymmetric"), ("linear", "align_corners")):
        layer = Resize(1, (7,), None, mode, coordinates, "floor", pytorch=True)
        yield case(layer, SEQUENCE, note=f"{mode}-pytorch")
    one = Resize(2, (1,), None, "linear", "pytorch_half_pixel")
    yield case(one, SEQUENCE, oracle=interpolated(one, lambda n: 1))
    steeper = Resize(0, (4,), None, "cubic", cubic_a=-0.5)
    yield case(steeper, MAJOR, oracle=interpolated(steeper, lambda n: 4))
    lent = Resize(1, ((1, 1),), None, "linear")
    yield case(lent, SEQUENCE, OTHER, note="lent", oracle=interpolated(lent, lambda n: 7))
    yield case(Resize(1, scale=1.0), SEQUENCE, oracle=of(lambda x: x), note="same")


def turned(x: Array, lengths: Array) -> Array:
    rows = [[*x[b, : int(n)][::-1], *x[b, int(n) :]] for b, n in enumerate(lengths)]
    return np.array(rows)


def reversed_() -> Iterator[Case]:
    ids: dict[str, Any] = {"integer": {1: (0, 5)}}
    yield case(ReverseSequence(), SEQUENCE, ("batch",), oracle=of(turned), **ids)
    major = of(lambda x, n: turned(x.swapaxes(0, 1), n).swapaxes(0, 1))
    yield case(ReverseSequence(0, 1), MAJOR, ("batch",), oracle=major, **ids)
    last = of(lambda x, n: np.moveaxis(turned(np.moveaxis(x, 2, 1), n), 1, 2))
    yield case(ReverseSequence(2, 0), FIRST, ("batch",), oracle=last, **ids)


def unfolded(axis: int, size: int, stride: int) -> Callable[..., Any]:
    def compute(x: Array) -> Array:
        count = (x.shape[axis] - size) // stride + 1
        taken = [x.take(range(k * stride, k * stride + size), axis) for k in range(count)]
        return np.stack([np.moveaxis(t, axis, -1) for t in taken], axis)

    return of(compute)


def sliding() -> Iterator[Case]:
    for axis, size, stride in ((1, 3, 1), (1, 2, 2), (1, 1, 1), (2, 2, 1)):
        layer = SlidingWindows(axis, size, stride)
        yield case(layer, SEQUENCE, oracle=unfolded(axis, size, stride))
    yield case(SlidingWindows(0, 2), MAJOR, oracle=unfolded(0, 2, 1))


CASES: Sequence[Case] = (*sliding(), *convolutions(), *pools(), *resized(), *reversed_())

MIXED: Shape = ("steps", "batch", 6, 4)

REFUSED: tuple[Refused, ...] = (
    Refused(Convolution(4, 3, (2, 2)), (MIXED,)),
    Refused(ConvolutionTranspose(4, 3, (2, 2)), (MIXED,)),
    Refused(Pool("max", (2, 2)), (MIXED,)),
    Refused(AdaptivePool("mean", (2, 2)), (MIXED,)),
    Refused(SlidingWindows(0, 2), (SEQUENCE,)),
    Refused(Resize(0, (4,)), (SEQUENCE,), mixes=False),
    Refused(Resize(1, ((1, 0),)), (SEQUENCE, SEQUENCE), mixes=False),
    Refused(ReverseSequence(0, 1), (("batch", 3), (3,)), options={"integer": {1: (0, 3)}}),
)
