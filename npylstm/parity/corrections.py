"""A correction: a change of a model, or of its call, that may explain different outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from npylstm.arrays import Array
from npylstm.lazy import lazy_property
from npylstm.ops.recurrent import Recurrent
from npylstm.parity.examples import Example
from npylstm.parity.variants import CachedRun, RunResult, Wrap
from npylstm.spec import Edge, LayerSpec, ModelSpec

__all__ = [
    "Around", "Cell", "Correction", "Detail", "Found", "Run", "Subject", "count_different",
]  # fmt: skip

Outputs = Mapping[str, Array]


class Run(Protocol):
    """A function that runs the model for an example; ``wrap`` may replace the node of a layer."""

    def __call__(self, example: Example, wrap: Wrap | None = None) -> RunResult:
        """Return the outputs and the final state."""
        ...


Around = Callable[[Run, Example], Outputs]  # calls the model, or reads its outputs, in another way
Detail = Mapping[str, Any]


@dataclass(frozen=True)
class Correction:
    """A change that may make the model give the outputs of the other program.

    Attributes
    ----------
    layer, detail, fix
        As in :class:`~npylstm.parity.diagnosis.Cause`.
    changes
        Layers that replace the model's, by name.
    spec
        The corrected model if its graph changes; otherwise ``changes`` define it.
    around
        Another way to call the model, or to read its outputs.
    free, data
        For a fit: the number of fitted parameters, and of different data. A fit is evidence only if
        there are more data than parameters.
    resembles
        For a correction that only approximates the other program and proves nothing: the largest
        share of the squared mismatch that it may leave to be reported; otherwise None.
    """

    layer: str | None
    detail: Detail
    fix: str
    changes: Mapping[str, LayerSpec] = field(default_factory=dict)
    spec: ModelSpec | None = None
    around: Around | None = None
    free: int = 0
    data: int = 0
    resembles: float | None = None

    def corrected(self, spec: ModelSpec) -> ModelSpec:
        """Return the corrected model; ``spec`` itself if only the call changes."""
        if self.spec is not None:
            return self.spec
        if not self.changes:
            return spec
        layers = tuple(self.changes.get(layer.name, layer) for layer in spec.layers)
        return replace(spec, layers=layers)


Found = Iterator[Correction]


@dataclass(frozen=True)
class Cell:
    """A recurrent layer, or one direction of a bidirectional layer, with its weights."""

    name: str
    way: str
    layer: Recurrent
    weights: Mapping[str, Array]

    def with_weights(self, **weights: Array) -> Cell:
        """Return the cell with some weights replaced; their dtype stays."""
        changed = {k: np.asarray(a, self.weights[k].dtype) for k, a in weights.items()}
        return replace(self, weights={**self.weights, **changed})


@dataclass(frozen=True)
class Site:
    """Cells to which one mistake is applied: one layer, one direction, or all of the model."""

    label: str | None
    cells: tuple[Cell, ...]


class Subject:
    """The model under examination: its layers, its examples, and its tensors for them.

    Parameters
    ----------
    spec
        The model, without its cases.
    tapes
        One tape for every example.
    """

    def __init__(self, spec: ModelSpec, tapes: Sequence[CachedRun]) -> None:
        self.spec, self.tapes = spec, tuple(tapes)
        self.layers = {layer.name: layer for layer in spec.layers}

    @property
    def examples(self) -> tuple[Example, ...]:
        """Return the runs to be explained."""
        return tuple(tape.example for tape in self.tapes)

    def edges_of(self, name: str) -> list[Edge]:
        """Return the calls of a layer."""
        return [edge for edge in self.spec.edges if edge.layer == name]

    @lazy_property
    def cells(self) -> tuple[Cell, ...]:
        """Return every recurrent cell, in the order of the layers."""
        found: list[Cell] = []
        for named in self.spec.layers:
            for prefix, part in named.layer.recurrent_parts().items():
                own = {
                    k.removeprefix(prefix): a
                    for k, a in named.weights.items()
                    if k.startswith(prefix)
                }
                found.append(Cell(named.name, prefix.rstrip("/"), part, own))
        return tuple(found)

    @lazy_property
    def sites(self) -> tuple[Site, ...]:
        """Return the sites of a mistake in a cell: every layer, all layers, each direction."""
        by_layer: dict[str, list[Cell]] = {}
        for cell in self.cells:
            by_layer.setdefault(cell.name, []).append(cell)
        sites = [Site(name, tuple(cells)) for name, cells in by_layer.items()]
        if len(by_layer) > 1:
            sites.append(Site(None, self.cells))
            kinds = dict.fromkeys(cell.layer.kind for cell in self.cells)
            for kind in kinds if len(kinds) > 1 else ():
                cells = tuple(cell for cell in self.cells if cell.layer.kind == kind)
                if len({cell.name for cell in cells}) > 1:
                    sites.append(Site(None, cells))
        halves = [cell for cell in self.cells if cell.way]
        sites += [Site(f"{cell.name}/{cell.way}", (cell,)) for cell in halves]
        if len(halves) > 2:
            for way in ("backward", "forward"):
                sites.append(Site(None, tuple(c for c in halves if c.way == way)))
        return tuple(sites)

    def put(self, cells: Iterable[Cell]) -> dict[str, LayerSpec]:
        """Return the layers with changed cells, by name."""
        changes: dict[str, LayerSpec] = {}
        for cell in cells:
            named = changes.get(cell.name, self.layers[cell.name])
            prefix = f"{cell.way}/" if cell.way else ""
            weights = {k: a for k, a in named.weights.items() if not k.startswith(prefix)}
            weights |= {f"{prefix}{k}": a for k, a in cell.weights.items()}
            layer = named.layer.with_recurrent_parts({prefix: cell.layer})
            changes[cell.name] = replace(named, layer=layer, weights=weights)
        return changes

    def in_cells(
        self, change: Callable[[Cell], Iterable[tuple[Detail, Cell]]], fix: str
    ) -> Iterator[Correction]:
        """Yield a change of cells at every site; ``fix`` is formatted with ``where`` and detail."""
        for site in self.sites:
            options = [
                {_key(detail): (detail, new) for detail, new in change(c)} for c in site.cells
            ]
            where = _site_name(site.label, site.cells)
            for key, (detail, _) in options[0].items():
                if all(key in others for others in options):
                    changes = self.put(others[key][1] for others in options)
                    text = fix.format(where=where, **detail)
                    yield Correction(site.label, detail, text, changes)

    def in_layers(
        self, change: Callable[[LayerSpec], Iterable[tuple[Detail, LayerSpec]]], fix: str
    ) -> Iterator[Correction]:
        """Yield a change in every layer, and in all layers to which it applies together."""
        everywhere: dict[str, dict[str, LayerSpec]] = {}
        details: dict[str, Detail] = {}
        for named in self.spec.layers:
            for detail, new in change(named):
                details[_key(detail)] = detail
                everywhere.setdefault(_key(detail), {})[named.name] = new
                text = fix.format(where=named.name, **detail)
                yield Correction(named.name, detail, text, {named.name: new})
        for key, changes in everywhere.items():
            if len(changes) > 1:
                where = " and ".join(changes)
                text = fix.format(where=where, **details[key])
                yield Correction(None, details[key], text, changes)


def count_different(rows: Array) -> int:
    """Return the number of rows that differ by more than rounding."""
    wide = rows.astype(np.float64)
    size = np.abs(wide).max(axis=0, initial=0.0)
    places = wide / (_ALIKE * np.where(size > 0, size, 1.0))
    # Two nearly equal rows may be on two sides of a border of one grid, but not of several grids.
    return min(len(np.unique(np.floor(places + k / _GRIDS), axis=0)) for k in range(_GRIDS))


# Relative to the largest value: a hundred times the rounding of float32.
_ALIKE = 1e-5
_GRIDS = 4


def _site_name(label: str | None, cells: Sequence[Cell]) -> str:
    """Return the name of a site for a sentence."""
    if label is not None:
        return label
    ways = {cell.way for cell in cells}
    direction = f"the {ways.pop()} direction of " if len(ways) == 1 and ways != {""} else ""
    return direction + " and ".join(dict.fromkeys(cell.name for cell in cells))


def _key(detail: Detail) -> str:
    return json.dumps(detail, sort_keys=True, default=str)
