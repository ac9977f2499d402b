"""Run many variants of one model on the same inputs, and compute shared tensors only once.

A diagnosis tries hundreds of small changes. Two things make that cheap. The tensors of the
unchanged model are kept, so only a changed layer and the layers after it are computed. And variants
that change only numbers (weights, activation functions) run together: their samples are
concatenated along the batch axis, and a *stacked* weight has one matrix for each variant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npylstm.activations import Activation
from npylstm.arrays import Array, zeros
from npylstm.errors import NpylstmError
from npylstm.lazy import lazy_property
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH
from npylstm.parity.examples import Example
from npylstm.runtime.numpy_engine import Node
from npylstm.spec import Edge, LayerSpec, ModelSpec

if TYPE_CHECKING:
    from npylstm.graph.state import State

__all__ = ["CachedRun", "RunResult", "Wrap", "run_graph"]

Changes = Mapping[str, LayerSpec]  # layers by name that replace the model's
Tensors = dict[str, Array]
Wrap = Callable[[Node], Node]

_MOST_NUMBERS = 1 << 21  # in the largest tensor of a stack: 8 MB of float32


@dataclass(frozen=True)
class _Matrices:
    """Matrices (variants, rows, columns); ``x @ this`` multiplies variant by variant."""

    values: Array
    __array_ufunc__ = None

    def __rmatmul__(self, x: Array) -> Array:
        count, rows, columns = self.values.shape
        y = x.reshape(count, -1, rows) @ self.values
        return y.reshape(*x.shape[:-1], columns)


@dataclass(frozen=True)
class _Vectors:
    """Vectors (variants, size); ``x + this`` adds variant by variant."""

    values: Array
    __array_ufunc__ = None

    def __radd__(self, x: Array) -> Array:
        count, size = self.values.shape
        return (x.reshape(count, -1, size) + self.values[:, None]).reshape(x.shape)


@dataclass(frozen=True)
class _Activations:
    """Activation functions, one for each variant in a stacked array."""

    parts: tuple[Activation, ...]
    axis = None

    def __call__(self, x: Array) -> Array:
        rows = len(x) // len(self.parts)
        y = np.empty_like(x)
        for activation, first, last in self._runs:
            here = slice(first * rows, last * rows)
            y[here] = activation(x[here])
        return y

    @lazy_property
    def _runs(self) -> tuple[tuple[Activation, int, int], ...]:
        """Return runs of equal functions as (function, start, stop)."""
        starts = [k for k, a in enumerate(self.parts) if k == 0 or a != self.parts[k - 1]]
        ends = [*starts[1:], len(self.parts)]
        return tuple((self.parts[k], k, end) for k, end in zip(starts, ends, strict=True))


class RunResult(NamedTuple):
    """The results of a run: tensors by name, and the final state of every call."""

    tensors: Tensors
    state: State


def run_graph(
    edges: Sequence[Edge],
    layers: Changes,
    outputs: Sequence[str],
    example: Example,
    wrap: Wrap | None = None,
) -> RunResult:
    """Run a graph of layers without validating it as a model.

    ``wrap`` may replace the node that computes a layer.

    Raises
    ------
    NpylstmError, ValueError, IndexError
        If the inputs of a layer do not fit.
    """
    tensors: Tensors = dict(example.inputs)
    after: State = {}
    for edge in edges:
        node = Node(layers[edge.layer])
        node = wrap(node) if wrap else node
        made, after[edge.name] = _compute(edge, node, tensors, example)
        tensors |= made
    return RunResult({name: tensors[name] for name in outputs}, after)


def _compute(
    edge: Edge, node: Node, tensors: Tensors, example: Example, times: int = 1
) -> tuple[Tensors, dict[str, Array]]:
    """Run one call; ``times`` is the number of variants along the batch axis."""
    reads = [tensors[t] for t in edge.inputs]
    wanted = node.layer.state_shapes()
    state = example.state.get(edge.name, {}) if example.has_state else {}
    if wanted and set(state) != set(wanted):
        batch = node.layer.batch_size(reads[0].shape)
        state = zeros(wanted, batch // times, reads[0].dtype)
    mask = example.mask
    if times > 1:
        state = {k: np.tile(a, (times, 1)) for k, a in state.items()}
        mask = None if mask is None else np.tile(mask, (times, 1))
    outputs, after = node.compute(reads, state, mask)
    return dict(zip(edge.outputs, outputs, strict=True)), after


class CachedRun:
    """A model's tensors for one example, reused by runs with changed layers.

    Parameters
    ----------
    spec
        The unchanged model.
    example
        Its inputs, state and mask.
    """

    def __init__(self, spec: ModelSpec, example: Example) -> None:
        self.spec, self.example = spec, example
        self._layers = {layer.name: layer for layer in spec.layers}
        self._nodes: dict[int, Node] = {}
        self._others: dict[tuple[int, Edge], Tensors] = {}  # changed layers on unchanged inputs
        self._kept: list[LayerSpec] = []  # keeps layers alive, so that an id stays unique
        self._makers = {t: edge for edge in spec.edges for t in edge.outputs}
        self.tensors: Tensors = dict(example.inputs)
        self.state: State = {}
        for edge in spec.edges:
            node = self._node(self._layers[edge.layer])
            made, self.state[edge.name] = _compute(edge, node, self.tensors, example)
            self.tensors |= made

    @property
    def outputs(self) -> Tensors:
        """Return outputs of the unchanged model."""
        return {name: self.tensors[name] for name in self.spec.outputs}

    def run(self, spec: ModelSpec) -> Tensors | None:
        """Run another model on the example; return None if sizes do not fit."""
        layers = {layer.name: layer for layer in spec.layers}
        return self._walk(spec.edges, layers, spec.outputs)

    def run_changed(self, changes: Changes) -> Tensors | None:
        """Run the model with some layers changed; return None if sizes do not fit."""
        return self._walk(self.spec.edges, {**self._layers, **changes}, self.spec.outputs)

    def run_variants(self, variants: Sequence[Changes]) -> list[Tensors | None]:
        """Run variants; those that change only numbers of the same layers run together."""
        results: list[Tensors | None] = [None] * len(variants)
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, changes in enumerate(variants):
            if self.changes_numbers(changes):
                groups.setdefault(tuple(sorted(changes)), []).append(number)
            else:
                results[number] = self.run_changed(changes)
        for names, numbers in groups.items():
            size = self._stack_size(names)
            for start in range(0, len(numbers), size):
                part = numbers[start : start + size]
                made = self._run_stack([variants[k] for k in part])
                for number, outputs in zip(part, made, strict=True):
                    results[number] = outputs
        return results

    def _node(self, layer: LayerSpec) -> Node:
        if id(layer) not in self._nodes:
            self._kept.append(layer)
            self._nodes[id(layer)] = Node(layer)
        return self._nodes[id(layer)]

    def _walk(
        self, edges: Sequence[Edge], layers: Changes, outputs: Sequence[str]
    ) -> Tensors | None:
        """Compute only the tensors that differ from the unchanged model."""
        own: Tensors = dict(self.example.inputs)
        same = set(self.example.inputs)
        try:
            for edge in edges:
                layer = layers[edge.layer]
                known = (
                    self._makers.get(edge.name) == edge and self._layers.get(edge.layer) is layer
                )
                if known and same.issuperset(edge.inputs):
                    own |= {t: self.tensors[t] for t in edge.outputs}
                    same.update(edge.outputs)
                else:
                    own |= self._changed(edge, layer, own, same.issuperset(edge.inputs))
            return {name: own[name] for name in outputs}
        except (NpylstmError, ValueError, IndexError):  # sizes that do not fit
            return None

    def _changed(
        self, edge: Edge, layer: LayerSpec, tensors: Tensors, inputs_same: bool
    ) -> Tensors:
        """Compute a changed call, once for each layer if its inputs are unchanged."""
        key = id(layer), edge
        if not inputs_same:
            return _compute(edge, self._node(layer), tensors, self.example)[0]
        if key not in self._others:
            node = self._node(layer)
            self._others[key] = _compute(edge, node, tensors, self.example)[0]
        return self._others[key]

    def _dirty(self, names: Sequence[str]) -> Iterator[Edge]:
        """Yield the calls of these layers, and all calls that depend on them."""
        changed: set[str] = set()
        for edge in self.spec.edges:
            if edge.layer in names or changed.intersection(edge.inputs):
                changed.update(edge.outputs)
                yield edge

    def changes_numbers(self, changes: Changes) -> bool:
        """Return whether layers differ only in weights and activations, and can run together."""
        if not all(_same_but_numbers(self._layers[n].layer, c.layer) for n, c in changes.items()):
            return False
        for edge in self._dirty([*changes]):
            shapes = [self.spec.shapes[t] for t in (*edge.inputs, *edge.outputs)]
            if not all(BATCH in shape for shape in shapes):
                return False
            layer = self._layers[edge.layer].layer
            if edge.layer in changes and layer.batch_size(shapes[0]) != BATCH:
                return False
        return True

    def _stack_size(self, names: Sequence[str]) -> int:
        """Return how many variants to run together."""
        largest = 1
        for edge in self._dirty(names):
            sizes = [self.tensors[t].size for t in (*edge.inputs, *edge.outputs)]
            shapes = [self.tensors[t].shape for t in edge.inputs]
            inside = self._layers[edge.layer].layer.scratch_size(shapes)
            largest = max(largest, inside, *sizes)
        return max(1, min(256, _MOST_NUMBERS // largest))

    def _run_stack(self, variants: Sequence[Changes]) -> list[Tensors | None]:
        count = len(variants)
        if count == 1:
            return [self.run_changed(variants[0])]
        names = [*variants[0]]
        nodes = {name: self._stacked([v[name] for v in variants]) for name in names}
        shapes = self.spec.shapes
        own: Tensors = {}
        for edge in self._dirty(names):
            for t in edge.inputs:
                if t not in own:
                    axis = shapes[t].index(BATCH)
                    times = [1] * len(shapes[t])
                    times[axis] = count
                    own[t] = np.tile(self.tensors[t], times)
            node = nodes.get(edge.layer) or self._node(self._layers[edge.layer])
            own |= _compute(edge, node, own, self.example, count)[0]
        made = {
            name: np.split(own[name], count, axis=shapes[name].index(BATCH))
            if name in own
            else [self.tensors[name]] * count
            for name in self.spec.outputs
        }
        return [{name: parts[k] for name, parts in made.items()} for k in range(count)]

    def _stacked(self, layers: Sequence[LayerSpec]) -> Node:
        """Return one node for many layers that differ only in numbers."""
        nodes = [Node(layer) for layer in layers]
        node = Node(layers[0])
        node.layer = _stack_activations([layer.layer for layer in layers])
        packed: dict[str, Any] = {}
        for key, first in nodes[0].packed.items():
            values = [other.packed[key] for other in nodes]
            if all(value is first or np.array_equal(value, first) for value in values[1:]):
                packed[key] = first
            else:
                wrap = _Matrices if first.ndim == 2 else _Vectors
                packed[key] = wrap(np.stack(values))
        node.packed = packed
        return node


def _same_but_numbers(a: Operation, b: Operation) -> bool:
    """Return whether two layers differ only in weights and activations, and can run together."""
    if a is b or not a.uses_matrix_products:
        return a.uses_matrix_products
    mine, other = a.activations, b.activations
    by_sample = all(f.axis in (None, -1) for f in (*mine.values(), *other.values()))
    return mine.keys() == other.keys() and by_sample and a.with_activations(other) == b


def _stack_activations(layers: Sequence[Operation]) -> Operation:
    stacked: dict[str, Any] = {}
    for name, own in layers[0].activations.items():
        values = tuple(layer.activations[name] for layer in layers)
        if any(value != own for value in values):
            stacked[name] = _Activations(values)
    return layers[0].with_activations(stacked)
