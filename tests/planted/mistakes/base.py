"""What a planting is, and in which layers a mistake can be made at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from planted.program import Layer, Run

Layers = tuple[str | None, ...]


@dataclass(frozen=True)
class Planting:
    """A program with one mistake.

    Parameters
    ----------
    kind, variant
        What the mistake is called, and which form of it this is.
    run
        The program that makes it.
    layers
        The layers that a diagnosis may name; empty where any answer is right.
    provable
        Whether a correction can reproduce the outputs within rounding.
    listed
        Whether the description of the kinds promises this form; otherwise it is one that people make, too.
    also
        Other kinds that describe the same mistake.
    """

    kind: str
    variant: str
    run: Run
    layers: Layers = ()
    provable: bool = True
    listed: bool = True
    also: tuple[str, ...] = ()


Plant = Callable[[Run, np.random.Generator], Iterator[Planting]]
CellChange = Callable[[Layer], Layer | None]


def in_cells(run: Run, change: CellChange) -> Iterator[tuple[str, Layers, Run, bool]]:
    """Apply a change where it fits: in one layer, in every layer, in backward directions only.

    Yields
    ------
    where, layers, run, listed
        In words; the layers that may be named; the changed program; whether the form is listed.
    """
    changed: dict[str, dict[str, Layer]] = {}
    for name, way, cell in run.program.cells():
        made = change(cell)
        if made is not None:
            changed.setdefault(name, {})[way] = made

    def apply(names: list[str], ways: tuple[str, ...]) -> Run:
        made = run
        for name in names:
            layer = made.program.layers[name]
            for way in ways:
                if way in changed[name]:
                    layer = layer.with_cell(way, changed[name][way])
            made = made.layer(name, layer)
        return made

    every = ("", "forward", "backward")
    both = [name for name, cells in changed.items() if "backward" in cells]
    for name in changed:
        layers: Layers = (name, None) if len(changed) == 1 else (name,)
        yield f"in {name}", layers, apply([name], every), True
    if len(changed) > 1:
        yield "in every layer", (None, *changed), apply([*changed], every), True
    for name in both:
        yield f"in {name}/backward", (f"{name}/backward",), apply([name], ("backward",)), True
        yield f"in {name}/forward", (f"{name}/forward",), apply([name], ("forward",)), False
    if len(both) > 1:
        names: Layers = (None, *both, *(f"{name}/backward" for name in both))
        yield "in every backward direction", names, apply(both, ("backward",)), True


def in_layers(
    run: Run, kinds: tuple[str, ...], change: Callable[[Layer], Layer | None]
) -> Iterator[tuple[str, Layers, Run, bool]]:
    """Apply a change to each layer of some kinds, and to all of them."""
    changed = {}
    for name, layer in run.program.layers.items():
        made = change(layer) if layer.kind in kinds else None
        if made is not None:
            changed[name] = made
    every = run
    for name, layer in changed.items():
        layers: Layers = (name, None) if len(changed) == 1 else (name,)
        yield f"in {name}", layers, run.layer(name, layer), True
        every = every.layer(name, layer)
    if len(changed) > 1:
        yield "in every layer", (None, *changed), every, False
