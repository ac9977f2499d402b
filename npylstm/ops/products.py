"""Products of tensors, summed along axes."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.blas import matmul
from npylstm.errors import FormatError, SizeMismatchError
from npylstm.ops.axis_map import At, AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Dim, Shape, broadcast, format_shape

__all__ = ["Dot", "Einsum", "MatMul"]


@dataclass(frozen=True)
class MatMul(Operation):
    """Multiply two tensors as stacks of matrices, as ``numpy.matmul`` does."""

    kind: ClassVar[str] = "matmul"
    computes_integers: ClassVar[bool] = True

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 2 or any(len(shape) < 2 for shape in inputs):
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected two inputs of at least 2 axes, got {listed}")
        a, b = inputs
        if a[-1] != b[-2]:
            raise FormatError(f"cannot multiply {format_shape(a)} by {format_shape(b)}")
        return ((*broadcast([a[:-2], b[:-2]]), a[-2], b[-1]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        a, b = (len(shape) for shape in shapes)
        leading = AxisMap.aligned([shape[:-2] for shape in shapes]).sources
        mixed = {(0, a - 1): "sums", (1, b - 2): "sums"}
        return (AxisMap((*leading, ((0, a - 2),), ((1, b - 1),)), mixed),)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        (made,) = self.infer_shapes(shapes)
        return math.prod(map(int, made)) * shapes[0][-1]

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (matmul(inputs[0], inputs[1]),), {}


@dataclass(frozen=True)
class Dot(Operation):
    """Multiply two tensors sample by sample and sum along one axis of each.

    The remaining axes of the first input come before those of the second: ``(batch, a, n)`` and
    ``(batch, b, n)`` along axes 2 and 2 give ``(batch, a, b)``; two vectors give ``(batch, 1)``.
    Sums are computed in float64.

    Parameters
    ----------
    axes
        One of each input; negative axes count from the end.
    normalize
        Divide both by their norm along the axis first: cosine similarity.
    epsilon
        Lower bound of the norm in this division: 1e-6 in Keras 2, 1e-7 in Keras 3.
    """

    kind: ClassVar[str] = "dot"
    computes_integers: ClassVar[bool] = True

    axes: tuple[int, ...]
    normalize: bool = False
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        if len(self.axes) != 2:
            raise FormatError(f"axes: expected two, got {self.axes}")

    def along(self, shapes: Sequence[Shape]) -> list[int]:
        """Return the axis of each input that is summed."""
        if len(shapes) != 2 or any(len(shape) < 2 for shape in shapes):
            raise FormatError(f"expected two inputs of at least 2 axes, got {len(shapes)}")
        axes = [a + len(s) if a < 0 else a for a, s in zip(self.axes, shapes, strict=True)]
        for axis, shape in zip(axes, shapes, strict=True):
            if axis == 0:
                raise FormatError(f"axes: expected two behind the first, got {self.axes}")
            check_axis(shape, axis)
        return axes

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        a, b = axes = self.along(inputs)
        for p, q in ((inputs[0][0], inputs[1][0]), (inputs[0][a], inputs[1][b])):
            if p != q:
                listed = " and ".join(map(format_shape, inputs))
                raise SizeMismatchError(f"cannot multiply {listed} along axes {axes}", (p, q))
        rest = [d for s, axis in zip(inputs, axes, strict=True) for d in s[1:axis] + s[axis + 1 :]]
        return ((inputs[0][0], *(rest or [1])),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        along = self.along(shapes)
        rest: list[tuple[At, ...]] = [
            ((k, axis),)
            for k, shape in enumerate(shapes)
            for axis in range(1, len(shape))
            if axis != along[k]
        ]
        mixed = dict.fromkeys(enumerate(along), "sums")
        return (AxisMap((((0, 0), (1, 0)), *(rest or [()])), mixed),)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        axis, _ = self.along(shapes)
        (made,) = self.infer_shapes(shapes)
        return math.prod(map(int, made)) * shapes[0][axis]

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        axes = self.along([x.shape for x in inputs])
        (target,) = self.output_shapes([x.shape for x in inputs])
        flat = []
        for x, axis in zip(inputs, axes, strict=True):
            moved = np.moveaxis(x.astype(np.float64), axis, -1)
            if self.normalize:
                length = (moved * moved).sum(axis=-1, keepdims=True)
                moved = moved / np.maximum(np.sqrt(length), self.epsilon)
            rows = math.prod(moved.shape[1:-1])
            flat.append(moved.reshape(len(x), rows, moved.shape[-1]))
        y = matmul(flat[0], flat[1].swapaxes(1, 2))
        return (y.reshape([int(d) for d in target]).astype(inputs[0].dtype),), {}


_LETTERS = string.ascii_letters


@dataclass(frozen=True)
class Einsum(Operation):
    """Multiply tensors and sum, by an equation of ``numpy.einsum``: ``btn,bsn->bts``.

    An ellipsis represents further axes, which are broadcast. Without ``->`` the output has the
    letters that occur once, in alphabetical order.
    """

    kind: ClassVar[str] = "einsum"
    computes_integers: ClassVar[bool] = True

    equation: str

    def __post_init__(self) -> None:
        text = self.equation.replace(" ", "")
        inputs, arrow, output = text.partition("->")
        terms = [*inputs.split(","), output]
        plain = [term.replace("...", "", 1) for term in terms]
        letters = set("".join(plain[:-1]))
        if not all(c in _LETTERS for term in plain for c in term):
            raise FormatError(
                f"equation: expected letters, commas and ->, got {self.equation!r:.80}"
            )
        if len(set(plain[-1])) < len(plain[-1]) or not set(plain[-1]) <= letters:
            raise FormatError(
                f"equation: expected an output of different letters of the inputs, got "
                f"{self.equation!r:.80}"
            )
        if not arrow:
            once = sorted(c for c in letters if "".join(plain[:-1]).count(c) == 1)
            ellipsis = "..." if "..." in inputs else ""
            text = f"{inputs}->{ellipsis}{''.join(once)}"
        object.__setattr__(self, "equation", text)

    def _terms(self, shapes: Sequence[Shape]) -> list[str]:
        """Return the letters of the axes of each input and of the output, without ellipses."""
        inputs, _, output = self.equation.partition("->")
        terms = inputs.split(",")
        if len(terms) != len(shapes):
            raise FormatError(f"{self.equation}: expected {len(terms)} inputs, got {len(shapes)}")
        unused = [c for c in _LETTERS if c not in self.equation]
        counts = [
            len(shape) - len(term.replace("...", ""))
            for term, shape in zip(terms, shapes, strict=True)
        ]
        for term, count, shape in zip(terms, counts, shapes, strict=True):
            if count < 0 or (count and "..." not in term):
                raise FormatError(
                    f"{self.equation}: expected the axes {term}, got an input {format_shape(shape)}"
                )
        more = "".join(unused[: max(counts)])  # the last axes of every ellipsis are the same
        full = [
            term.replace("...", more[len(more) - count :])
            for term, count in zip(terms, counts, strict=True)
        ]
        return [*full, output.replace("...", more)]

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        sizes, output = self._sizes(inputs)
        return (tuple(sizes[letter] for letter in output),)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        return math.prod(map(int, self._sizes(shapes)[0].values()))

    def _sizes(self, inputs: Sequence[Shape]) -> tuple[dict[str, Dim], str]:
        """Return the size of the axis of each letter, and the letters of the output."""
        *terms, output = self._terms(inputs)
        sizes: dict[str, Dim] = {}
        for term, shape in zip(terms, inputs, strict=True):
            for letter, size in zip(term, shape, strict=True):
                known = sizes.get(letter, 1)
                if known != size and 1 not in (known, size):
                    listed = " and ".join(map(format_shape, inputs))
                    raise SizeMismatchError(
                        f"{self.equation}: {letter} has several sizes in {listed}", (known, size)
                    )
                sizes[letter] = size if known == 1 else known
        return sizes, output

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        *terms, output = self._terms(shapes)
        places = [(letter, (k, n)) for k, term in enumerate(terms) for n, letter in enumerate(term)]
        sources = tuple(tuple(at for own, at in places if own == letter) for letter in output)
        mixed = {at: "sums" for letter, at in places if letter not in output}
        mixed |= {
            (k, n): "takes a diagonal"
            for k, term in enumerate(terms)
            for n, letter in enumerate(term)
            if term.count(letter) > 1
        }
        return (AxisMap(sources, mixed),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([x.shape for x in inputs])
        *terms, output = self._terms([x.shape for x in inputs])
        return (np.einsum(f"{','.join(terms)}->{output}", *inputs, optimize=True),), {}
