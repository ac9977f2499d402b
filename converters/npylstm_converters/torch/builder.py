"""A graph under construction: layers are added, tensors are named, the rest is thrown away.

What an operation of a traced program gives is one of five things: a tensor of the graph
(:class:`Ref`), a tensor that depends on no input (:class:`Known`), zeros or another fill that is
made only if somebody looks (:class:`Fill`), a stack of tensors that is stacked only if somebody
looks (:class:`Pieces`), or a plain Python value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npylstm import NpylstmError
from npylstm.arrays import Array
from npylstm.ops.arithmetic import Constant
from npylstm.ops.base import Operation
from npylstm.ops.indexing import Select, SizeOf
from npylstm.ops.pointwise import Identity
from npylstm.ops.recurrent import Recurrent
from npylstm.ops.shapes import Shape, batch_axes, format_shape
from npylstm.ops.shaping import Full, Reshape, Stack
from npylstm.spec import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm_converters.errors import Refusal

__all__ = ["Builder", "Fill", "Free", "Known", "Pieces", "Ref", "TracedShape"]

TracedShape = tuple[Any, ...]  # integers, and expressions that torch made up


@dataclass(frozen=True)
class Ref:
    """A tensor of the graph, with the sizes that torch gave it."""

    name: str
    traced: TracedShape


@dataclass(frozen=True)
class Known:
    """A tensor that depends on no input."""

    value: Any  # a torch.Tensor

    @property
    def traced(self) -> TracedShape:
        return tuple(self.value.shape)


@dataclass(frozen=True)
class Fill:
    """A tensor of one value; None in memory that nobody has written to."""

    value: float | None
    traced: TracedShape


@dataclass(frozen=True)
class Free:
    """A size that is known only when the model is called."""

    size: Any  # an expression that torch made up

    traced: TracedShape = ()


@dataclass(frozen=True)
class Pieces:
    """Tensors along a new first axis; ``name`` is what to call them once they are stacked."""

    pieces: tuple[Ref, ...]
    name: str = ""

    @property
    def traced(self) -> TracedShape:
        return (len(self.pieces), *self.pieces[0].traced)


class Builder:
    """Layers and edges in the order of computation.

    Parameters
    ----------
    inputs
        The model's inputs, with the shapes that torch gave them.
    dtype
        Of all weights.
    slices_known
        Take torch's word for how many entries a slice of a free axis has.
    """

    def __init__(
        self,
        inputs: Mapping[TensorSpec, TracedShape],
        dtype: str,
        slices_known: bool = False,
    ) -> None:
        self.inputs = tuple(inputs)
        self.dtype = dtype
        self.slices_known = slices_known
        self.shapes: dict[str, Shape] = {t.name: t.shape for t in inputs}
        self.layers: dict[str, LayerSpec] = {}
        self.edges: list[Edge] = []
        self.origins: dict[int, tuple[str, ...]] = {}  # names of tensors, by identity
        self.read: dict[str, dict[str, None]] = {}  # by layer, the tensors it was made of
        self._traced = {t.name: traced for t, traced in inputs.items()}
        self._shared: dict[tuple[Any, ...], str] = {}

    def add(
        self,
        name: str,
        layer: Operation,
        inputs: Sequence[Ref],
        traced: Sequence[TracedShape],
        weights: Mapping[str, Array] | None = None,
        share: tuple[Any, ...] = (),
    ) -> list[Ref]:
        """Call a layer.

        Parameters
        ----------
        name
            What to call it; a number is added if the name is taken.
        layer, weights
            What it is.
        inputs
            What it reads.
        traced
            The shapes that torch gave to its outputs.
        share
            Identifies the weights: calls with the same layer and the same key share them.

        Raises
        ------
        Refusal
            If the layer cannot take these inputs.
        """
        try:
            made = layer.output_shapes([self.shapes[t.name] for t in inputs])
        except NpylstmError as error:
            raise Refusal(str(error)) from None
        paired = [shape for shape in made if batch_axes(shape) > 1]
        if paired:
            raise Refusal(
                f"gives {format_shape(paired[0])}: samples of the batch would depend on one another"
            )
        key = (layer, *share)
        origins = [name for k in share for name in self.origins.get(k, ())]
        if share and key in self._shared:
            name = self._shared[key]
        else:
            name = self._unused(name)
            arrays = {
                k: np.ascontiguousarray(w, dtype=self.dtype) for k, w in (weights or {}).items()
            }
            self.layers[name] = LayerSpec(name, layer, arrays)
            self._shared.setdefault(key, name)
        self.read.setdefault(name, {}).update(dict.fromkeys(origins))
        main = self._unused_tensor(name)
        suffixes = layer.output_names()
        outputs = tuple(f"{main}/{s}" if s else main for s in suffixes)
        self.edges.append(Edge(name, tuple(t.name for t in inputs), outputs))
        self.shapes |= dict(zip(outputs, made, strict=True))
        return [Ref(n, shape) for n, shape in zip(outputs, traced, strict=True)]

    def ref(self, value: Any, name: str) -> Ref:
        """Bring any tensor into the graph."""
        if isinstance(value, Ref):
            return value
        if isinstance(value, Pieces):
            name = value.name or name
            if len(value.pieces) == 1:  # a new axis of size one
                same = [(0, a) for a in range(len(value.pieces[0].traced))]
                return self.add(name, Reshape((1, *same)), value.pieces, [value.traced])[0]
            return self.add(name, Stack(0), value.pieces, [value.traced])[0]
        if isinstance(value, Fill):
            if value.value is None:
                raise Refusal("reads memory that nobody has written to")
            sizes, donors = self.sizes(value.traced, ())
            # At least one input: a fill is of the inputs' type.
            donors = donors or [self._input(self.inputs[0].name)]
            return self.add(name, Full(sizes, value.value), donors, [value.traced])[0]
        if isinstance(value, Known):
            array = self.array(value)
            layer = Constant(array.shape)
            return self.add(name, layer, [], [value.traced], {"value": array}, (id(value.value),))[
                0
            ]
        if isinstance(value, Free):
            (lender,) = self.sizes((value.size,), [])[1]
            axis = lender.traced.index(value.size)
            return self.add(name, SizeOf(axis), [lender], [()])[0]
        raise Refusal(f"expected a tensor, got {type(value).__name__}")

    def array(self, value: Any) -> Array:
        """Get the numbers of a tensor that depends on no input."""
        if not isinstance(value, Known):
            raise Refusal("its weights are computed from the inputs")
        tensor = value.value.detach().cpu()
        if not tensor.dtype.is_floating_point:
            tensor = tensor.double()
        array: Array = tensor.numpy()
        return array

    def sizes(
        self, wanted: TracedShape, first: Sequence[Ref], infer: bool = False
    ) -> tuple[tuple[Any, ...], list[Ref]]:
        """Say a traced shape in sizes of inputs: of ``first``, else of the model's own.

        Returns
        -------
        sizes, inputs
            For :class:`~npylstm.ops.shaping.Reshape`; ``inputs`` begins with ``first``.
        """
        donors = list(first)
        sizes: list[int | tuple[int, int]] = []
        for dim in wanted:
            if isinstance(dim, int):
                sizes.append(dim)
                continue
            found = _find(dim, donors)
            if found is None:
                lender = next((n for n, shape in self._traced.items() if dim in shape), None)
                if lender is not None:
                    donors.append(self._input(lender))
                    found = _find(dim, donors)
            if found is None and (not infer or -1 in sizes):
                raise Refusal(f"its size {dim} is not that of any axis of an input")
            sizes.append(-1 if found is None else found)
        return tuple(sizes), donors

    def _input(self, name: str) -> Ref:
        return Ref(name, self._traced[name])

    def _unused(self, name: str) -> str:
        taken = {*self.layers, *self.shapes, *RESERVED, "", ".", ".."}
        base, number = name.replace("/", "_").replace("\\", "_") or "model", 1
        name = base
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        return name

    def _unused_tensor(self, layer: str) -> str:
        if layer not in self.shapes:
            return layer
        number = 2
        while f"{layer}#{number}" in self.shapes:
            number += 1
        return f"{layer}#{number}"

    def select(self, value: Any, index: int, name: str) -> Ref:
        """Take one entry along the first axis."""
        if isinstance(value, Pieces):
            return value.pieces[index]
        source = self.ref(value, name)
        return self.add(f"{name}_{index}", Select(0, index), [source], [source.traced[1:]])[0]

    def finish(self, outputs: Sequence[Ref]) -> tuple[list[LayerSpec], list[Edge], list[str]]:
        """Simplify, drop what nobody reads, and name the outputs."""
        names: list[str] = []
        for output in outputs:  # every output is a tensor of its own
            name = output.name
            if name in names or any(name == t.name for t in self.inputs):
                name = self.add("identity", Identity(), [output], [output.traced])[0].name
            names.append(name)
        _last_steps_only(self.edges, self.layers, names)
        _drop_unread(self.edges, names)
        _drop_unread_states(self.edges, self.layers, names)
        used = {edge.layer for edge in self.edges}
        return [s for n, s in self.layers.items() if n in used], self.edges, names


def _find(dim: Any, donors: Sequence[Ref]) -> tuple[int, int] | None:
    for k, donor in enumerate(donors):
        for axis, size in enumerate(donor.traced):
            if not isinstance(size, int) and size == dim:
                return k, axis
    return None


def _readers(edges: Sequence[Edge], outputs: Sequence[str]) -> dict[str, list[Edge | None]]:
    """Who reads each tensor; None stands for the caller."""
    readers: dict[str, list[Edge | None]] = {name: [None] for name in outputs}
    for edge in edges:
        for tensor in edge.inputs:
            readers.setdefault(tensor, []).append(edge)
    return readers


def _last_steps_only(edges: list[Edge], layers: dict[str, LayerSpec], outputs: list[str]) -> None:
    """Where only the last step of a sequence is read, let the layer return only that."""
    readers = _readers(edges, outputs)
    calls = [edge.layer for edge in edges]
    renamed: dict[str, str] = {}
    for edge in list(edges):
        layer = layers[edge.layer].layer
        if not isinstance(layer, Recurrent) or not layer.return_sequences:
            continue
        main = edge.outputs[0]
        last = Select(axis=0 if layer.time_major else 1, index=-1)
        found = readers.get(main, [])
        alone = calls.count(edge.layer) == 1
        if not found or not alone or layer.go_backwards:
            continue
        if all(r is not None and layers[r.layer].layer == last for r in found):
            layers[edge.layer] = replace(
                layers[edge.layer], layer=replace(layer, return_sequences=False)
            )
            for reader in found:
                assert reader is not None
                if reader in edges:
                    edges.remove(reader)
                    renamed[reader.outputs[0]] = main
    for k, edge in enumerate(edges):
        edges[k] = replace(edge, inputs=tuple(renamed.get(t, t) for t in edge.inputs))
    outputs[:] = [renamed.get(name, name) for name in outputs]


def _drop_unread(edges: list[Edge], outputs: Sequence[str]) -> None:
    """Remove calls whose outputs nobody reads, from the last on."""
    wanted = set(outputs)
    for edge in reversed(list(edges)):
        if wanted.isdisjoint(edge.outputs):
            edges.remove(edge)
        else:
            wanted.update(edge.inputs)


def _drop_unread_states(
    edges: list[Edge], layers: dict[str, LayerSpec], outputs: Sequence[str]
) -> None:
    """Let recurrent layers return their state only where somebody reads it."""
    readers = _readers(edges, outputs)
    returned: dict[str, bool] = {}
    for edge in edges:
        read = any(t in readers for t in edge.outputs[1:])
        returned[edge.layer] = returned.get(edge.layer, False) or read
    for k, edge in enumerate(edges):
        if len(edge.outputs) > 1 and not returned[edge.layer]:
            edges[k] = replace(edge, outputs=edge.outputs[:1])
            layers[edge.layer] = _without_state(layers[edge.layer])


def _without_state(spec: LayerSpec) -> LayerSpec:
    layer: Any = spec.layer
    if isinstance(layer, Recurrent):
        return replace(spec, layer=replace(layer, return_state=False))
    halves = {
        f"{way}_layer": replace(half, return_state=False) for way, half in layer.directions.items()
    }
    return replace(spec, layer=replace(layer, **halves))
