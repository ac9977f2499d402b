"""A plan: the operations that compute one call of a function, before they have names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from npylstm import NpylstmError
from npylstm.arrays import Array
from npylstm.ops.arithmetic import Constant
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Size
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.integer_checks import check_behind, check_numbers, is_integer_type

__all__ = ["AxisSize", "Operand", "Plan", "Step", "sizes_of"]


@dataclass(frozen=True)
class Operand:
    """A tensor of a plan: an input of the call, a source of a size, or the output of a step."""

    number: int
    shape: Shape


class AxisSize(NamedTuple):
    """The size of an axis of a tensor of the model: a value, not a tensor."""

    tensor: str
    shape: Shape
    axis: int


@dataclass(frozen=True)
class Step:
    """One operation of a plan, with the numbers of its operands and of its output."""

    operation: Operation
    reads: tuple[int, ...]
    made: int
    weights: Mapping[str, Array] = field(default_factory=dict)


class Plan:
    """The operations that compute a call.

    Parameters
    ----------
    names, shapes
        The tensors that the call reads.
    in_steps
        Whether it runs at every step of TimeDistributed, where there are no other tensors.
    integers
        The type of the result if these are integers: then each step computes integers.
    floats
        The model's type.
    types
        The types in Keras of the tensors that the call reads: of integers, or empty for floats.

    Attributes
    ----------
    tensors
        The names of operands that are tensors of the model, by number.
    steps
        In the order of computation.
    """

    def __init__(
        self, names: Sequence[str], shapes: Sequence[Shape], in_steps: bool, integers: str = "",
        floats: str = "float32", types: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.operands = [Operand(k, shape) for k, shape in enumerate(shapes)]
        self.tensors: dict[int, str] = dict(enumerate(names))
        self.steps: list[Step] = []
        self._in_steps, self._integers, self._floats = in_steps, integers, floats
        self._of_integers = {k for k, name in enumerate(types) if name}

    def tensor(self, value: Any) -> Operand:
        if isinstance(value, Operand):
            return value
        if isinstance(value, np.ndarray) or _is_of_numbers(value):
            return self._constant(np.asarray(value))
        raise Refusal(f"expected a tensor, got {value!r:.60}")

    def number(self, value: Any) -> float | None:
        if isinstance(value, np.ndarray) and not value.ndim:
            value = value.item()
        if isinstance(value, (Operand, np.ndarray)) or _is_of_numbers(value):
            return None
        if type(value) not in (int, float, bool):
            raise Refusal(f"expected tensors and numbers, got {value!r:.60}")
        try:
            return float(value)
        except OverflowError:
            raise Refusal("expected a number of a size that floats have") from None

    def shape(self, tensor: Operand) -> Shape:
        return tensor.shape

    def holds_integers(self, tensor: Operand) -> bool:
        """Whether the call reads a tensor that holds integers or truth values in Keras."""
        return tensor.number in self._of_integers

    def add(self, operation: Operation, *tensors: Operand, part: str = "") -> Operand:
        try:
            (shape,) = operation.output_shapes([x.shape for x in tensors])
        except NpylstmError as error:
            raise Refusal(str(error)) from None
        made = self._made(operation, tensors, shape)
        check = check_behind(operation, self._integers, self._floats)
        return made if check is None else self._made(check, [made], shape)

    def _made(
        self,
        operation: Operation,
        tensors: Sequence[Operand],
        shape: Shape,
        weights: Mapping[str, Array] | None = None,
    ) -> Operand:
        made = self._operand(shape)
        reads = tuple(x.number for x in tensors)
        self.steps.append(Step(operation, reads, made.number, weights or {}))
        return made

    def _operand(self, shape: Shape) -> Operand:
        self.operands.append(Operand(len(self.operands), shape))
        return self.operands[-1]

    def _constant(self, value: Array) -> Operand:
        if value.dtype.kind not in "fiub":
            raise Refusal(f"expected numbers, got {value.dtype}")
        if self._in_steps:
            raise Refusal("a constant tensor inside TimeDistributed is not supported")
        if is_integer_type(self._integers):
            check_numbers(value, self._floats)
        operation = Constant(value.shape)
        return self._made(operation, (), value.shape, {"value": value.astype(np.float64)})

    def size(self, tensor: Operand, axis: int) -> AxisSize:
        """Return the size of an axis of a tensor that the call reads."""
        return AxisSize(self.tensors[tensor.number], tensor.shape, axis)

    def source(self, size: AxisSize) -> Operand:
        """Return the tensor whose size it is."""
        if self._in_steps:
            raise Refusal("the size of a tensor inside TimeDistributed is not supported")
        known = {name: number for number, name in self.tensors.items()}
        if size.tensor in known:
            return self.operands[known[size.tensor]]
        operand = self._operand(size.shape)
        self.tensors[operand.number] = size.tensor
        return operand


def _is_of_numbers(value: Any) -> bool:
    """Whether a value is a list of numbers, or a list of such lists of one length."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    if all(type(v) in (int, float, bool) for v in value):
        return True
    return all(map(_is_of_numbers, value)) and len({len(v) for v in value}) == 1


def sizes_of(
    graph: Any, sizes: Sequence[Any], first: int = 0
) -> tuple[tuple[Size, ...], list[Any]]:
    """Return a shape with sizes of tensors, and these tensors.

    Parameters
    ----------
    graph
        The plan.
    sizes
        Integers and sizes of tensors.
    first
        The number of inputs that the operation has before them.
    """
    sources: list[Operand] = []
    made: list[Size] = []
    for size in sizes:
        if isinstance(size, AxisSize):
            source = graph.source(size)
            if source not in sources:
                sources.append(source)
            made.append((first + sources.index(source), size.axis))
        elif type(size) is int:
            made.append(size)
        else:
            raise Refusal(f"shape: expected integers, got {size!r:.60}")
    return tuple(made), [*sources]
