"""The graph builder for traced programs, and the values that their operations return.

The result of an operation is one of eight: a tensor of the graph (:class:`Ref`), a tensor that
depends on no input (:class:`ConstantTensor`), a constant fill that is created only if an operation
reads it (:class:`FilledTensor`), so are counted numbers (:class:`RangeTensor`), tensors that are
stacked only if an operation reads the stack (:class:`StackedTensors`), a tensor that entries were
written to (:class:`ScatteredTensor`), a free size (:class:`SymbolicSize`), or a plain Python value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npylstm import NpylstmError
from npylstm.arrays import Array
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.arithmetic import Arithmetic, Constant
from npylstm.ops.base import Operation
from npylstm.ops.indexing import Select, SizeOf
from npylstm.ops.shapes import Dim
from npylstm.ops.shaping import Full, Reshape, Stack
from npylstm.ops.sorting import Cumulative
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Refusal

__all__ = [
    "Builder",
    "ConstantTensor",
    "FilledTensor",
    "RangeTensor",
    "Ref",
    "ScatteredTensor",
    "StackedTensors",
    "SymbolicSize",
    "TracedShape",
]

TracedShape = tuple[Any, ...]  # integers and torch's symbolic expressions


@dataclass(frozen=True)
class Ref:
    """A tensor of the graph, with its shape in torch's trace."""

    name: str
    traced: TracedShape


@dataclass(frozen=True)
class ConstantTensor:
    """A tensor that depends on no input."""

    value: Any  # a torch.Tensor

    @property
    def traced(self) -> TracedShape:
        return tuple(self.value.shape)


@dataclass(frozen=True)
class FilledTensor:
    """A tensor of one value; None for uninitialised memory."""

    value: float | None
    traced: TracedShape


@dataclass(frozen=True)
class RangeTensor:
    """``start, start + step, ...`` along its only axis whose size is not one."""

    start: float
    step: float
    traced: TracedShape

    def is_whole(self, size: Any) -> bool:
        """Whether it counts all entries of an axis of this size."""
        return (self.start, self.step) == (0.0, 1.0) and [*self.traced].count(size) == 1


@dataclass(frozen=True)
class SymbolicSize:
    """A free size, known only when the model is called."""

    size: Any  # torch's symbolic expression

    traced: TracedShape = ()


@dataclass(frozen=True)
class StackedTensors:
    """Tensors along a new first axis; ``name`` is the name of the stacked tensor."""

    pieces: tuple[Ref, ...]
    name: str = ""

    @property
    def traced(self) -> TracedShape:
        return (len(self.pieces), *self.pieces[0].traced)


@dataclass(frozen=True)
class ScatteredTensor:
    """A tensor along one axis of known size of which some entries were written."""

    base: Any
    axis: int
    pieces: tuple[Ref | None, ...]

    @property
    def traced(self) -> TracedShape:
        traced: TracedShape = self.base.traced
        return traced

    @classmethod
    def of(cls, base: Any, axis: int) -> ScatteredTensor:
        """Return a tensor to write entries to."""
        if isinstance(base, ScatteredTensor) and base.axis == axis:
            return base
        return cls(base, axis, (None,) * base.traced[axis])

    def with_piece(self, index: int, piece: Ref) -> ScatteredTensor:
        """Return the tensor with another entry."""
        return replace(self, pieces=(*self.pieces[:index], piece, *self.pieces[index + 1 :]))


class Builder(GraphBuilder):
    """A graph under construction from a traced program.

    Parameters
    ----------
    inputs
        The model's inputs, with their shapes in torch's trace.
    dtype
        The dtype of all weights.
    slices_known
        Use torch's sizes for slices of free axes.
    """

    def __init__(
        self, inputs: Mapping[TensorSpec, TracedShape], dtype: str, slices_known: bool = False
    ) -> None:
        super().__init__(inputs, dtype)
        self.slices_known = slices_known
        self.origins: dict[int, tuple[str, ...]] = {}  # names of tensors, by identity
        self.read: dict[str, dict[str, None]] = {}  # by layer, its source tensors
        self.folded: dict[str, Any] = {}  # constants, by how they are computed
        self.masks: dict[tuple[str, Dim], Ref] = {}  # by lengths and number of steps
        self.zeroed: dict[str, str] = {}  # sequences with zeros at masked steps: their masks
        self._traced = {t.name: traced for t, traced in inputs.items()}

    def add_traced(
        self,
        name: str,
        operation: Operation,
        inputs: Sequence[Ref],
        traced: Sequence[TracedShape],
        weights: Mapping[str, Array] | None = None,
        share: tuple[Any, ...] = (),
    ) -> list[Ref]:
        """Add an operation, as :meth:`add` does; ``traced`` are torch's shapes of the outputs.

        Raises
        ------
        Refusal
            If the operation does not accept these inputs.
        """
        try:
            outputs = self.add(name, operation, [t.name for t in inputs], weights, share)
        except NpylstmError as error:
            raise Refusal(str(error)) from None
        origins = [source for k in share for source in self.origins.get(k, ())]
        self.read.setdefault(self.edges[-1].layer, {}).update(dict.fromkeys(origins))
        return [Ref(n, shape) for n, shape in zip(outputs, traced, strict=True)]

    def ref(self, value: Any, name: str) -> Ref:
        """Return the tensor of the graph for any value; add it if necessary."""
        if isinstance(value, Ref):
            return value
        if isinstance(value, StackedTensors):
            name = value.name or name
            operation: Operation = Stack(0)
            if len(value.pieces) == 1:  # a new axis of size one
                same = [(0, a) for a in range(len(value.pieces[0].traced))]
                operation = Reshape((1, *same))
            return self.add_traced(name, operation, value.pieces, [value.traced])[0]
        if isinstance(value, FilledTensor):
            if value.value is None:
                raise Refusal("reads memory that nobody has written to")
            sizes, sources = self.sizes(value.traced, ())
            # At least one input: a fill has the inputs' type.
            sources = sources or [self._input(self.inputs[0].name)]
            return self.add_traced(name, Full(sizes, value.value), sources, [value.traced])[0]
        if isinstance(value, RangeTensor):
            return self._counted(value, name)
        if isinstance(value, ScatteredTensor):
            return self._joined(value, name)
        if isinstance(value, ConstantTensor):
            array = self.array(value)
            return self.add_traced(
                name, Constant(array.shape), [], [value.traced], {"value": array},
                (id(value.value),),
            )[0]  # fmt: skip
        if isinstance(value, SymbolicSize):
            (source,) = self.sizes((value.size,), [])[1]
            axis = source.traced.index(value.size)
            return self.add_traced(name, SizeOf(axis), [source], [()])[0]
        raise Refusal(f"expected a tensor, got {type(value).__name__}")

    def _counted(self, value: RangeTensor, name: str) -> Ref:
        ones = self.ref(FilledTensor(1.0, value.traced), f"{name}_ones")
        axis = next(k for k, size in enumerate(value.traced) if size != 1)
        operations: list[Operation] = [Cumulative("sum", axis, exclusive=True)]
        operations += [Arithmetic("multiply", value.step)] if value.step != 1 else []
        operations += [Arithmetic("add", value.start)] if value.start else []
        for operation in operations:
            (ones,) = self.add_traced(name, operation, [ones], [value.traced])
        return ones

    def _joined(self, value: ScatteredTensor, name: str) -> Ref:
        axis, traced = value.axis, (*value.traced[: value.axis], *value.traced[value.axis + 1 :])
        pieces = [piece for piece in value.pieces if piece is not None]
        if len(pieces) < len(value.pieces):
            fills = isinstance(value.base, FilledTensor)
            rest = FilledTensor(value.base.value, traced) if fills else value.base
            base = self.ref(rest, f"{name}_rest")
            pieces = [
                piece
                or (base if fills else
                    self.add_traced(f"{name}_{k}", Select(axis, k), [base], [traced])[0])
                for k, piece in enumerate(value.pieces)
            ]  # fmt: skip
        return self.add_traced(name, Stack(axis), pieces, [value.traced])[0]

    def array(self, value: Any) -> Array:
        """Return the array of a tensor that depends on no input."""
        if not isinstance(value, ConstantTensor):
            raise Refusal("its weights are computed from the inputs")
        tensor = value.value.detach().cpu()
        if not tensor.dtype.is_floating_point:
            tensor = tensor.double()
        array: Array = tensor.numpy()
        return array

    def sizes(
        self, wanted: TracedShape, first: Sequence[Ref], infer: bool = False
    ) -> tuple[tuple[Any, ...], list[Ref]]:
        """Return a traced shape in terms of sizes of ``first``, else of the model's inputs.

        Returns
        -------
        sizes, inputs
            For :class:`~npylstm.ops.shaping.Reshape`; ``inputs`` starts with ``first``.
        """
        sources = list(first)
        sizes: list[int | tuple[int, int]] = []
        for dim in wanted:
            if isinstance(dim, int):
                sizes.append(dim)
                continue
            found = _find(dim, sources)
            if found is None:
                owner = next((n for n, shape in self._traced.items() if dim in shape), None)
                if owner is not None:
                    sources.append(self._input(owner))
                    found = _find(dim, sources)
            if found is None and (not infer or -1 in sizes):
                raise Refusal(f"its size {dim} is not that of any axis of an input")
            sizes.append(-1 if found is None else found)
        return tuple(sizes), sources

    def _input(self, name: str) -> Ref:
        return Ref(name, self._traced[name])

    def select(self, value: Any, index: int, name: str) -> Ref:
        """Return one entry along the first axis."""
        if isinstance(value, StackedTensors):
            return value.pieces[index]
        source = self.ref(value, name)
        selected = self.add_traced(
            f"{name}_{index}", Select(0, index), [source], [source.traced[1:]]
        )
        return selected[0]


def _find(dim: Any, sources: Sequence[Ref]) -> tuple[int, int] | None:
    for k, source in enumerate(sources):
        for axis, size in enumerate(source.traced):
            if not isinstance(size, int) and size == dim:
                return k, axis
    return None
