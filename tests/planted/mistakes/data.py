"""Mistakes in what goes into a model and in what is made of its outputs; precision."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from planted.functions import rounded
from planted.mistakes.base import Planting
from planted.program import Array, Layer, Outputs, Program, Run


def sequence_outputs(run: Run) -> bool:
    """Whether every output has one entry for each step of the input."""
    kept = all(
        next(iter(layer.cells.values())).config["return_sequences"]
        for layer in run.program.layers.values()
        if layer.recurrent
    )
    pooling = {"select", "reduce", "masked_mean"}
    return kept and not pooling & {v.kind for v in run.program.layers.values()}


def _on_outputs(function: Any, outputs: Outputs) -> Outputs:
    return {name: function(y) for name, y in outputs.items()}


def _on_inputs(run: Run, function: Any, ids: bool = False) -> Run:
    inputs = {k: function(x) if ids or x.ndim == 3 else x for k, x in run.data.inputs.items()}
    return run.inputs(inputs=inputs)


def layout(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    """Batch and time exchanged: the first axis of what is given is taken for the other one."""
    inputs = list(run.data.inputs.values())
    batch, steps = inputs[0].shape[:2]
    free = run.data.state is None and run.data.lengths is None
    if len(inputs) > 1 or not (free or batch == steps) or run.data.lengths is not None:
        return
    timed = sequence_outputs(run)
    if not timed and batch != steps:
        return
    turn = functools.partial(np.swapaxes, axis1=0, axis2=1)
    swapped = _on_inputs(run, turn, ids=True)
    if timed:
        back = swapped.then(functools.partial(_on_outputs, turn))
        yield Planting("layout", "batch and time exchanged", back)
    else:
        yield Planting("layout", "batch and time exchanged, one output a sample", swapped)
    if timed and batch != steps:
        shape = (steps, batch)
        torn = _on_inputs(run, lambda x: x.reshape(*shape, *x.shape[2:]), ids=True)
        back = functools.partial(_on_outputs, lambda y: y.reshape(batch, steps, *y.shape[2:]))
        yield Planting("layout", "reshaped, not transposed", torn.then(back), listed=False)
    if timed and batch == steps:
        made = run.then(functools.partial(_on_outputs, turn))
        yield Planting("layout", "outputs not turned back", made, listed=False)


def shifted(by: int, x: Array) -> Array:
    """Move along axis 1, zeros where nothing is known: later for positive numbers."""
    y = np.zeros_like(x)
    if by > 0:
        y[:, by:] = x[:, :-by]
    else:
        y[:, :by] = x[:, -by:]
    return y


def time_shift(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    if sequence_outputs(run):
        for by in (1, -1, 2, -2):
            made = run.then(functools.partial(_on_outputs, functools.partial(shifted, by)))
            yield Planting("time_shift", f"outputs by {by:+d}", made, listed=by != -2)
    for by in (1, -1):
        made = _on_inputs(run, functools.partial(shifted, by), ids=True)
        yield Planting("time_shift", f"inputs by {by:+d}", made, listed=by == 1)


def _affine(factor: Any, offset: Any, x: Array) -> Array:
    return np.asarray(factor, x.dtype) * x + np.asarray(offset, x.dtype)


def scaling(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for factor, offset in ((1.7, -0.4), (0.01, 0.0), (1.0, 0.5), (12.5, 3.0)):
        change = functools.partial(_affine, factor, offset)
        made = run.then(functools.partial(_on_outputs, change))
        yield Planting("scaling", f"outputs {factor} y {offset:+}", made)
        if factor != 12.5 and any(x.ndim == 3 for x in run.data.inputs.values()):
            made = _on_inputs(run, functools.partial(_affine, np.float32(factor), np.float32(offset)))  # fmt: skip
            yield Planting("scaling", f"inputs {factor} x {offset:+}", made)

    def each(y: Array, seed: int = int(rng.integers(1 << 30))) -> Array:
        drawn = np.random.default_rng(seed)
        n = y.shape[-1]
        return _affine(drawn.uniform(0.5, 2, n), drawn.normal(0, 0.5, n), y)

    made = run.then(functools.partial(_on_outputs, each))
    yield Planting("scaling", "outputs by feature", made)
    if len(run.data.inputs) == 1 and any(x.ndim == 3 for x in run.data.inputs.values()):
        yield Planting("scaling", "inputs by feature", _on_inputs(run, each))


def output_order(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    names = run.program.outputs
    sizes = {name: run.program.layers[name].config["units"] for name in names if name in run.program.layers}  # fmt: skip
    for k, a in enumerate(names):
        for b in names[k + 1 :]:
            if sizes.get(a) == sizes.get(b):
                made = run.then(functools.partial(_exchange, a, b))
                also = ("layers_swapped",) if a in sizes else ("state_swapped",)
                yield Planting("output_order", f"{a} and {b}", made, also=also)


def _exchange(a: str, b: str, outputs: Outputs) -> Outputs:
    return {**outputs, a: outputs[b], b: outputs[a]}


def _rounded(kind: str, program: Program) -> Program:
    def change(layer: Layer) -> Layer:
        weights = {k: rounded(w, kind) for k, w in layer.weights.items()}
        parts = {way: change(part) for way, part in layer.parts.items()}
        return replace(layer, weights=weights, parts=parts)

    return replace(program, layers={name: change(v) for name, v in program.layers.items()})


def reduced_precision(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    kind = "reduced_precision"
    for precision in ("float16", "bfloat16"):
        made = replace(run, program=_rounded(precision, run.program))
        yield Planting(kind, f"{precision} weights", made)
    for precision, what in (("float16", "activations"), ("tf32", "products")):
        made = replace(run, precision=precision)
        yield Planting(kind, f"{precision} {what}", made, provable=False)
    made = replace(run, precision="bfloat16")
    yield Planting(kind, "bfloat16 activations", made, provable=False, listed=False)
