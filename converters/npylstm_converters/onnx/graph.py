"""The graph under construction from an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm import NpylstmError
from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.arithmetic import Arithmetic, Constant
from npylstm.ops.base import Operation
from npylstm.ops.indexing import SizeOf
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Stack
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.sizes import Size, equal, size_of
from npylstm_converters.onnx.values import ConstantTensor, Ref, Sizes, Value, kind_of
from npylstm_converters.toolkit.integer_checks import check_behind, check_numbers

__all__ = ["OnnxGraph", "readable"]


def readable(name: str) -> str:
    """Return a name for a layer: ``/lstm/LSTM`` is ``lstm_LSTM``."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return "_".join(dict.fromkeys(parts)) or "layer"


class OnnxGraph:
    """The graph that the functions of rows add operations to.

    Parameters
    ----------
    inputs
        The model's inputs.
    kinds
        Their types by name, as :attr:`Ref.kind`.
    dtype
        Of all weights.
    exported_batch
        The fixed size of the batch in the file, which sizes inside the graph may rely on; None if
        it is free there.
    file_names
        How the file calls the free sizes of inputs, by their names in the model.

    Attributes
    ----------
    builder
        The model under construction.
    uniform
        The number that is every element of a tensor, by name, for those where this is known.
    sources
        By layer, the initializers that its weights are from, each with the layers inside it that
        have them: none but for the graph of a step.
    fixes_sizes
        Whether a reshape takes only one number for a size of inputs that is free in the file.
    name
        Name of the node that is translated: the name of its layer.
    expected_batch_axis
        Where the reader of the node's output expects the batch, if it is known.
    """

    def __init__(
        self, inputs: Sequence[TensorSpec], kinds: Mapping[str, str], dtype: str,
        exported_batch: int | None = None, file_names: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        self.exported_batch, self.file_names = exported_batch, file_names
        self.fixes_sizes = False
        self.builder = GraphBuilder(inputs, dtype)
        self.uniform: dict[str, float] = {}
        self.sources: dict[str, dict[str, tuple[str, ...]]] = {}
        self.name = ""
        self.expected_batch_axis: int | None = None
        self._inputs = {tensor.name: Ref(tensor.name, kinds[tensor.name]) for tensor in inputs}
        self._constants: dict[int, Ref] = {}
        self._kept: list[ConstantTensor] = []  # their ids identify weights

    @property
    def inputs(self) -> Mapping[str, Ref]:
        """The model's inputs by name."""
        return self._inputs

    def tensor(self, value: Any) -> Ref:
        """Return a value as a tensor of the model; a constant becomes a layer."""
        if isinstance(value, Ref):
            return value
        if isinstance(value, ConstantTensor):
            if id(value) not in self._constants:
                self._constants[id(value)] = self._constant(value)
            return self._constants[id(value)]
        if isinstance(value, Sizes):
            return Ref(self._tensor_of_sizes(value).name, value.kind)
        raise Refusal("expected a tensor, got none")

    def _constant(self, value: ConstantTensor) -> Ref:
        check_numbers(value.array, self.builder.dtype)
        array = np.asarray(value.array, np.float64)
        (ref,) = self.layer(
            Constant(array.shape), {"value": array}, part="constant", values=(value,),
            kind=kind_of(value),
        )  # fmt: skip
        if array.size and (array == array.flat[0]).all():
            self.uniform[ref.name] = float(array.flat[0])
        return ref

    def _tensor_of_sizes(self, value: Sizes) -> Ref:
        """Return sizes as numbers that are computed with."""
        entries = [self._tensor_of_size(entry) for entry in np.ravel(value.array).tolist()]
        if value.array.ndim == 0:
            return entries[0]
        if value.array.ndim == 1:
            return self.add(Stack(0), *entries, part="sizes", kind="i")
        raise Refusal("computes with a matrix of sizes")

    def _tensor_of_size(self, size: Any) -> Ref:
        if not isinstance(size, Size):
            return self.tensor(ConstantTensor(np.asarray(size)))
        total: Ref | None = None
        for term, number in size.terms.items():
            product = self.tensor(ConstantTensor(np.asarray(number))) if not term else None
            for atom in term:
                source, axis = self.find_size(Size({(atom,): 1}))
                made = self.add(SizeOf(axis), source, part="size", kind="i")
                product = made if product is None else self._combined("multiply", product, made)
            assert product is not None
            if term and number != 1:
                product = self.add(Arithmetic("multiply", float(number)), product, part="size")
            total = product if total is None else self._combined("add", total, product)
        assert total is not None
        return Ref(total.name, "i")

    def _combined(self, operation: str, x: Ref, y: Ref) -> Ref:
        return self.add(Arithmetic(operation), x, y, part="size", kind="i")

    def number(self, value: Any) -> float | None:
        """Return a number, or a constant of one element and no axes; None for anything else."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, ConstantTensor) and value.array.size == 1 and value.array.ndim == 0:
            number = float(value.array.item())
            return None if math.isnan(number) else number
        return None

    def shape(self, tensor: Any) -> Shape:
        """Return the shape of a tensor, with symbols."""
        return self.builder.shapes[tensor.name]

    def sizes(self, tensor: Ref) -> list[Size | int]:
        """Return the shape of a tensor as sizes to compute with."""
        return [size_of(dim) for dim in self.shape(tensor)]

    def find_size(self, size: Size, first: Sequence[Ref] = ()) -> tuple[Ref, int]:
        """Return a tensor and an axis of this size: of the first ones, or of an input.

        Raises
        ------
        Refusal
            If there is none.
        """
        for ref in (*first, *self._inputs.values()):
            for axis, own in enumerate(self.sizes(ref)):
                if isinstance(own, Size) and own.terms == size.terms:
                    return ref, axis
        for edge in self.builder.edges:
            for name in edge.outputs:
                for axis, own in enumerate(map(size_of, self.builder.shapes[name])):
                    if isinstance(own, Size) and own.terms == size.terms:
                        return Ref(name), axis
        raise Refusal(f"its size {size} is not that of any axis of a tensor")

    def make_equal(self, kept: Size | int, other: Size | int) -> bool:
        """Make two free sizes of inputs equal in every call; return whether it was possible."""
        if isinstance(kept, int) or isinstance(other, int) or equal(kept, other):
            return False
        return self.builder.make_equal(str(kept), str(other))

    def target(
        self, sizes: Sequence[Any], x: Ref | None, infer: bool = False
    ) -> tuple[tuple[Any, ...], list[Ref]]:
        """Return a target shape for operations such as Reshape, and the tensors that it refers to.

        Parameters
        ----------
        sizes
            Integers and sizes.
        x
            The first of the tensors.
        infer
            One size may be -1, and one that no axis has becomes -1.
        """
        sources = [x] if x is not None else []
        made: list[Any] = []
        for size in sizes:
            if not isinstance(size, Size):
                made.append(int(size))
                continue
            try:
                source, axis = self.find_size(size, sources)
            except Refusal:
                known = [*made, *(s for s in sizes if not isinstance(s, Size))]
                if not infer or any(type(s) is int and s == -1 for s in known):
                    raise
                made.append(-1)
                continue
            if source not in sources:
                sources.append(source)
            made.append((sources.index(source), axis))
        if not sources:
            sources = [next(iter(self._inputs.values()))]
        return tuple(made), sources

    def add(
        self, operation: Operation, *tensors: Ref, part: str = "", kind: str | None = None
    ) -> Ref:
        """Add an operation without weights and with one output.

        ``kind`` is the type of its output, by default that of its first input.
        """
        made = self.layer(operation, {}, *tensors, part=part, kind=kind)[0]
        if made.kind != "i" or part == "size":
            return made
        # Nearly all are int64; the graph does not say.
        check = check_behind(operation, "int64", self.builder.dtype)
        return made if check is None else self.layer(check, {}, made, part="integers")[0]

    def layer(
        self,
        operation: Operation,
        weights: Mapping[str, Array],
        *tensors: Ref,
        part: str = "",
        kind: str | None = None,
        values: Sequence[Value | None] = (),
        variant: tuple[Any, ...] = (),
    ) -> list[Ref]:
        """Add an operation; ``values`` are what its weights are computed from, ``variant`` how.

        Raises
        ------
        Refusal
            If the operation does not accept these inputs.
        """
        name = f"{self.name}_{part}" if part else self.name
        constants = [v for v in values if isinstance(v, ConstantTensor)]
        share = (*map(id, constants), *variant) if weights else ()
        try:
            outputs = self.builder.add(name, operation, [t.name for t in tensors], weights, share)
        except NpylstmError as error:
            raise Refusal(str(error)) from None
        self._kept.extend(constants)
        layer = self.builder.edges[-1].layer
        for constant in constants:
            self.sources.setdefault(layer, {}).update(dict.fromkeys(constant.sources, ()))
        own = kind or (tensors[0].kind if tensors else "f")
        refs = [Ref(output, own) for output in outputs]
        if tensors and operation.moves_elements:
            unread = operation.axis_map([self.shape(t) for t in tensors])[0].unread
            read = [t.name for k, t in enumerate(tensors) if k not in unread]
            numbers = {self.uniform.get(name) for name in read}
            value = numbers.pop() if len(numbers) == 1 else None
            if value == 0 or (value is not None and operation.input_value(value) == value):
                self.uniform.update((ref.name, value) for ref in refs)
        return refs

    def is_from_input(self, tensor: Ref) -> bool:
        """Whether a tensor has no numbers but those of one input, perhaps without fractions."""
        name = tensor.name
        for edge in reversed(self.builder.edges):
            if name in edge.outputs:
                operation: Any = self.builder.layers[edge.layer].layer
                cut_off = operation == ActivationLayer(Activation("trunc"))
                if len(edge.inputs) != 1 or not (operation.moves_elements or cut_off):
                    return False
                (name,) = edge.inputs
        return True

    def is_zero(self, value: Value | None) -> bool:
        """Whether a value is absent, or a tensor of zeros."""
        return value is None or self.is_uniform(value, 0)

    def is_uniform(self, value: Value, number: float) -> bool:
        """Whether every element of a value is known to be a number."""
        if isinstance(value, Ref):
            return self.uniform.get(value.name) == number
        return isinstance(value, ConstantTensor) and bool((value.array == number).all())
