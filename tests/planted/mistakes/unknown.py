"""Mistakes that no kind describes: nothing may be proven of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planted.mistakes.base import Planting
from planted.program import Array, Layer, Outputs, Run


def unknown(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    yield from _odd_weights(run, rng)
    yield from _odd_formulas(run)
    yield from _odd_outputs(run, rng)


def _planting(variant: str, run: Run) -> Planting:
    return Planting("unknown", variant, run, provable=False, listed=False)


def _odd_weights(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name, way, cell in run.program.cells():
        place = f"{name}/{way}".rstrip("/")
        layer = run.program.layers[name]
        for key in sorted(cell.weights)[:: max(1, len(cell.weights) // 3)]:
            w = cell.weights[key]
            one = w.copy()
            one.reshape(-1)[rng.integers(w.size)] += 0.5
            noisy = (w + rng.normal(0, 0.05, w.shape)).astype(np.float32)
            for text, new in ((f"one number of {key} in {place}", one), (f"noise on {key} in {place}", noisy)):  # fmt: skip
                yield _planting(text, run.layer(name, layer.with_cell(way, cell.weights_with({key: new}))))  # fmt: skip
        drawn = {k: rng.permutation(w.reshape(-1)).reshape(w.shape) for k, w in cell.weights.items()}  # fmt: skip
        made = run.layer(name, layer.with_cell(way, cell.weights_with(drawn)))
        yield _planting(f"all weights shuffled in {place}", made)
        yield _planting(f"gates interleaved in {place}", run.layer(name, layer.with_cell(way, _interleaved(cell))))  # fmt: skip


def _interleaved(cell: Layer) -> Layer:
    """Units before gates in the packed columns: ``(units, gates)`` read as ``(gates, units)``."""

    def change(letter: str) -> dict[str, Array]:
        arrays = [cell.weights[f"{letter}_{g}"] for g in cell.gates]
        packed = np.stack(arrays, -1).reshape(*arrays[0].shape[:-1], -1)
        parts = np.split(packed, len(cell.gates), -1)
        return {f"{letter}_{g}": w for g, w in zip(cell.gates, parts, strict=True)}

    return cell.weights_with(change("W") | change("U") | change("b"))


def _odd_formulas(run: Run) -> Iterator[Planting]:
    slips = {
        "lstm": ({"formula": "output_inside"}, {"formula": "coupled"}, {"formula": "power"}, {"clip": 0.2}, {"returns_c": True}),
        "gru": ({"formula": "reset_all"}, {"formula": "power"}),
        "simple_rnn": ({"formula": "power"},),
    }  # fmt: skip
    for name, way, cell in run.program.cells():
        for change in slips[cell.kind]:
            if "returns_c" in change and cell.config["projection"]:
                continue
            layer = run.program.layers[name].with_cell(way, cell.slips_with(**change))
            text = f"{' '.join(map(str, next(iter(change.items()))))} in {name}/{way}".rstrip("/")
            yield _planting(text, run.layer(name, layer))
    for name, layer in run.program.layers.items():
        if layer.kind == "conv1d":
            yield _planting(f"kernel flipped in {name}", run.layer(name, layer.slips_with(flipped=True)))  # fmt: skip


def _odd_outputs(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    seed = int(rng.integers(1 << 30))

    def each(function: str, outputs: Outputs) -> Outputs:
        drawn = np.random.default_rng(seed)
        change = {
            "noise": lambda y: y + drawn.normal(0, 1e-3, y.shape),
            "random": lambda y: drawn.normal(0, 1, y.shape),
            "two decimals": lambda y: np.round(y, 2),
            "cube": lambda y: y + 0.1 * y**3,
            "power": lambda y: np.sign(y) * np.abs(y) ** 1.1,
        }[function]
        return {name: change(y) for name, y in outputs.items()}

    for function in ("noise", "random", "two decimals", "cube", "power"):
        yield _planting(f"outputs: {function}", run.then(functools.partial(each, function)))
    x = {k: v for k, v in run.data.inputs.items() if v.ndim == 3}
    if x:
        squared = {k: (v + 0.05 * v**2).astype(np.float32) for k, v in x.items()}
        yield _planting("inputs bent", replace(run, data=replace(run.data, inputs={**run.data.inputs, **squared})))  # fmt: skip
