"""The graph of one iteration of a loop, under construction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Reshape
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.counters import Counter
from npylstm_converters.onnx.graph import OnnxGraph
from npylstm_converters.onnx.shaping import transpose
from npylstm_converters.onnx.sizes import equal
from npylstm_converters.onnx.values import ConstantTensor, Ref, Value

__all__ = ["State", "StepGraph", "StepScope"]


@dataclass
class State:
    """A value that an iteration passes to the next: its initial value, and its names."""

    initial: Ref
    read: str
    made: str
    shape: Shape
    step_input: str = ""


class StepScope(MutableMapping[str, Any]):
    """The names that the body of a loop can read; tensors of the outer graph become inputs."""

    def __init__(self, outer: Mapping[str, Any], graph: StepGraph) -> None:
        self._outer, self._graph = outer, graph
        self._own: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._own:
            value = self._outer[name]
            self._own[name] = self._graph.capture(value) if isinstance(value, Ref) else value
        return self._own[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._own[name] = value

    def __delitem__(self, name: str) -> None:
        del self._own[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._outer

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


class StepGraph(OnnxGraph):
    """The graph of one iteration.

    Attributes
    ----------
    sequences
        For the inputs that are one step of a tensor, by name: the tensor, and the counter.
    constants
        For the inputs that are the same in every iteration: the tensor of the outer graph.
    """

    def __init__(self, outer: OnnxGraph) -> None:
        super().__init__((), {}, outer.builder.dtype, outer.exported_batch, outer.file_names)
        self.outer = outer
        self.sequences: dict[str, tuple[Ref, Counter]] = {}
        self.constants: dict[str, Ref] = {}

    def add_input(self, name: str, shape: Shape, kind: str) -> Ref:
        """Add an input of the step."""
        name = self.builder.unused(name)
        self.builder.inputs += (TensorSpec(name, shape),)
        self.builder.shapes[name] = shape
        ref = Ref(name, kind)
        self._inputs[name] = ref
        return ref

    def capture(self, value: Ref) -> Ref:
        """Return an input for a tensor of the outer graph."""
        for name, outer in self.constants.items():
            if outer == value:
                return Ref(name, value.kind)
        ref = self.add_input(f"{value.name}", self.outer.shape(value), value.kind)
        self.constants[ref.name] = value
        if value.name in self.outer.uniform:
            self.uniform[ref.name] = self.outer.uniform[value.name]
        return ref

    def step_of(self, data: Value, counter: Counter, axis: int) -> Ref:
        """Return the entry of a tensor that a counter is the index of."""
        outer = self.constants.get(data.name) if isinstance(data, Ref) else None
        if isinstance(data, ConstantTensor):
            outer = self.outer.tensor(data)
        if outer is None:
            raise Refusal("reads an entry of a tensor that the loop itself computes")
        rank = len(self.outer.shape(outer))
        if axis:
            outer = transpose(
                self.outer, outer, perm=[axis, *(k for k in range(rank) if k != axis)]
            )
        for name, (known, reads) in self.sequences.items():
            same = reads.step == counter.step and equal(reads.start, counter.start)
            if known == outer and same:
                return self._with_axis(Ref(name, outer.kind), counter, axis)
        ref = self.add_input(f"{outer.name}_step", self.outer.shape(outer)[1:], outer.kind)
        self.sequences[ref.name] = (outer, replace(counter, rank=0))
        return self._with_axis(ref, counter, axis)

    def _with_axis(self, ref: Ref, counter: Counter, axis: int) -> Ref:
        if not counter.rank:
            return ref
        sizes: list[Any] = [(0, k) for k in range(len(self.shape(ref)))]
        return self.add(Reshape((*sizes[:axis], 1, *sizes[axis:])), ref, part="axis")
