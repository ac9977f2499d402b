"""The graph builder: importers add operations to it.

It names layers and tensors, infers shapes and shares weights between calls. It makes symbolic sizes
of inputs equal where an operation needs that, and raises an error if samples would mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import MixedSamplesError, SizeMismatchError
from npylstm.graph.parts import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm.ops.base import Operation
from npylstm.ops.indexing import Select
from npylstm.ops.pointwise import Identity
from npylstm.ops.shapes import BATCH, Dim, Shape, batch_axes, format_shape

__all__ = ["GraphBuilder"]


class GraphBuilder:
    """A graph under construction: layers and edges in topological order.

    Parameters
    ----------
    inputs
        The model's inputs.
    dtype
        Of all weights.

    Attributes
    ----------
    inputs
        The model's inputs; symbolic sizes may have become equal.
    shapes
        Of all tensors, by name.
    layers
        By name.
    edges
        In topological order.

    Examples
    --------
    >>> from npylstm.ops.pointwise import Rescaling
    >>> builder = GraphBuilder([TensorSpec("x", ("batch", "steps", 3))])
    >>> builder.add("twice", Rescaling(2.0), ["x"])
    ('twice',)
    >>> builder.shapes["twice"]
    ('batch', 'steps', 3)
    """

    def __init__(self, inputs: Iterable[TensorSpec] = (), dtype: str = "float32") -> None:
        self.inputs = tuple(inputs)
        self.dtype = dtype
        self.shapes: dict[str, Shape] = {t.name: t.shape for t in self.inputs}
        self.layers: dict[str, LayerSpec] = {}
        self.edges: list[Edge] = []
        self._shared: dict[tuple[Any, ...], str] = {}
        self._taken = {*RESERVED, "", ".", ".."}

    def add(
        self,
        name: str,
        operation: Operation,
        inputs: Sequence[str],
        weights: Mapping[str, Array] | None = None,
        share: tuple[Any, ...] = (),
    ) -> tuple[str, ...]:
        """Add a layer, or call an existing one that shares its weights.

        Parameters
        ----------
        name
            Name of the layer; a number is added if the name exists.
        operation, weights
            The operation and its weights.
        inputs
            Names of the input tensors.
        share
            Identifies the weights: equal operations with the same ``share`` are calls of one layer.

        Returns
        -------
        tuple
            Names of the outputs.

        Raises
        ------
        FormatError
            If the operation does not accept these inputs.
        """
        key = (operation, *share)
        if share and key in self._shared:
            return self.call(self.layers[self._shared[key]], inputs)
        arrays = {k: np.asarray(w, self.dtype, order="C") for k, w in (weights or {}).items()}
        layer = LayerSpec(self.unused(name), operation, arrays)
        outputs = self.call(layer, inputs)
        if share:
            self._shared[key] = layer.name
        return outputs

    def call(
        self, layer: LayerSpec, inputs: Sequence[str], number: int | None = None
    ) -> tuple[str, ...]:
        """Add a call of a layer; ``number`` is the index of the call, from 1 on."""
        shapes = self._output_shapes(layer.layer, inputs)
        if number is None:
            number = 1
            while (layer.name if number == 1 else f"{layer.name}#{number}") in self.shapes:
                number += 1
        self.layers[layer.name] = layer
        edge = Edge.call(layer, *inputs, number=number)
        self.edges.append(edge)
        self.shapes |= dict(zip(edge.outputs, shapes, strict=True))
        return edge.outputs

    def replace_layer(self, name: str, operation: Operation, weights: Mapping[str, Array]) -> None:
        """Replace the operation and the weights of a layer; calls and shapes stay as they are."""
        self._shared = {key: layer for key, layer in self._shared.items() if layer != name}
        self.layers[name] = LayerSpec(name, operation, dict(weights))

    def rename(self, layer: str, name: str) -> dict[str, str]:
        """Rename a layer that is called once, and the tensors that it makes.

        Parameters
        ----------
        layer
            The layer.
        name
            An unused name.

        Returns
        -------
        dict
            New names of these tensors by their former names.
        """
        number = next(k for k, edge in enumerate(self.edges) if edge.layer == layer)
        old, renamed = self.edges[number], replace(self.layers[layer], name=name)
        self.edges[number] = Edge.call(renamed, *old.inputs)
        names = dict(zip(old.outputs, self.edges[number].outputs, strict=True))
        self.layers = {name if k == layer else k: v for k, v in self.layers.items()}
        self.layers[name] = renamed
        self._shared = {k: name if v == layer else v for k, v in self._shared.items()}
        self.shapes = {names.get(k, k): shape for k, shape in self.shapes.items()}
        for k, edge in enumerate(self.edges):
            self.edges[k] = replace(edge, inputs=tuple(names.get(t, t) for t in edge.inputs))
        return names

    def add_named(self, name: str, tensor: str) -> None:
        """Add an identity, so that a tensor has a reserved name, too."""
        self._taken.discard(name)
        self.add(name, Identity(), [tensor])

    def _output_shapes(self, operation: Operation, inputs: Sequence[str]) -> tuple[Shape, ...]:
        while True:
            try:
                shapes = operation.output_shapes([self.shapes[t] for t in inputs])
            except SizeMismatchError as error:
                if not self.make_equal(*error.sizes):
                    raise
                continue
            paired = [shape for shape in shapes if batch_axes(shape) > 1]
            if paired:
                raise MixedSamplesError(
                    f"gives {format_shape(paired[0])}: samples of the batch would depend on one "
                    "another"
                )
            return shapes

    def make_equal(self, kept: Dim, other: Dim) -> bool:
        """Make two sizes equal from now on; return False if neither is a free size of inputs."""
        if isinstance(other, int):  # keep an integer
            kept, other = other, kept
        free = {d for t in self.inputs for d in t.shape if isinstance(d, str)} - {BATCH}
        if other not in free or (isinstance(kept, str) and kept not in free):
            return False

        def renamed(shape: Shape) -> Shape:
            return tuple(kept if d == other else d for d in shape)

        self.inputs = tuple(replace(t, shape=renamed(t.shape)) for t in self.inputs)
        self.shapes = {t.name: t.shape for t in self.inputs}
        for edge in self.edges:  # symbols that depend on the size change, too
            operation = self.layers[edge.layer].layer
            made = operation.output_shapes([self.shapes[t] for t in edge.inputs])
            self.shapes |= dict(zip(edge.outputs, made, strict=True))
        return True

    def reserve(self, names: Iterable[str]) -> None:
        """Reserve names; :meth:`add` does not use them for layers."""
        self._taken |= {*names}

    def unused(self, name: str) -> str:
        """Return an unused name for a layer: this name, with a number if it exists."""
        base = name.replace("/", "_").replace("\\", "_") or "model"
        name, number = base, 1
        while name in self._taken or name in self.layers or name in self.shapes:
            number += 1
            name = f"{base}_{number}"
        return name

    def finish(
        self, outputs: Sequence[str], copy: str = "identity", *, keep_inputs: bool = False
    ) -> tuple[str, ...]:
        """Add an identity for outputs that are repeated; return the outputs' names.

        Parameters
        ----------
        outputs
            Names of the output tensors.
        copy
            Name of such a layer; ``{}`` in it is the name of the tensor.
        keep_inputs
            An output may be an input; else an identity is added for it, too.
        """
        names: list[str] = []
        taken = set() if keep_inputs else {t.name for t in self.inputs}
        for name in outputs:
            if name in names or name in taken:
                (name,) = self.add(copy.format(name), Identity(), [name])
            names.append(name)
        return tuple(names)

    def simplify(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Remove unused calls, sequences with only the last step used, and unused state outputs.

        Returns
        -------
        tuple
            Names of the outputs, which may have changed.
        """
        names = self._last_steps_only(outputs)
        wanted = set(names)
        for edge in reversed(list(self.edges)):
            if wanted.isdisjoint(edge.outputs):
                self.edges.remove(edge)
            else:
                wanted.update(edge.inputs)
        self._drop_unread_states(names)
        called = {edge.layer for edge in self.edges}
        self.layers = {name: layer for name, layer in self.layers.items() if name in called}
        return names

    def _readers(self, outputs: Sequence[str]) -> dict[str, list[Edge | None]]:
        """Return the edges that read each tensor; None represents the model's output."""
        readers: dict[str, list[Edge | None]] = {name: [None] for name in outputs}
        for edge in self.edges:
            for tensor in edge.inputs:
                readers.setdefault(tensor, []).append(edge)
        return readers

    def _last_steps_only(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Set ``return_sequences`` to False where only the last step is used."""
        readers = self._readers(outputs)
        calls = [edge.layer for edge in self.edges]
        renamed: dict[str, str] = {}
        for edge in list(self.edges):
            layer = self.layers[edge.layer]
            shorter = layer.layer.returning_last_step()
            if shorter is None or calls.count(edge.layer) > 1:
                continue
            main = edge.outputs[0]
            found = readers.get(main, [])
            last = Select(axis=layer.layer.time_axis, index=-1)
            if found and all(r is not None and self.layers[r.layer].layer == last for r in found):
                self.layers[edge.layer] = replace(layer, layer=shorter)
                for reader in found:
                    assert reader is not None
                    if reader in self.edges:
                        self.edges.remove(reader)
                        renamed[reader.outputs[0]] = main
        for k, edge in enumerate(self.edges):
            self.edges[k] = replace(edge, inputs=tuple(renamed.get(t, t) for t in edge.inputs))
        return tuple(renamed.get(name, name) for name in outputs)

    def _drop_unread_states(self, outputs: Sequence[str]) -> None:
        """Set ``return_state`` to False where the state is not used."""
        readers = self._readers(outputs)
        returned: dict[str, bool] = {}
        for edge in self.edges:
            read = any(t in readers for t in edge.outputs[1:])
            returned[edge.layer] = returned.get(edge.layer, False) or read
        for name, read in returned.items():
            layer = self.layers[name]
            shorter = layer.layer.without_returned_state()
            if read or shorter is None:
                continue
            self.layers[name] = replace(layer, layer=shorter)
            for k, edge in enumerate(self.edges):
                if edge.layer == name:
                    self.edges[k] = replace(edge, outputs=edge.outputs[:1])
