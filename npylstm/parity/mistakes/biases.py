"""Fit biases to the outputs, because the model stores only the sum of two biases.

PyTorch and cuDNN have an input bias and a recurrent bias; an LSTM needs only their sum. A mistake
in one of the two, or in both before the addition, is fitted by Gauss-Newton. One stacked run
computes the derivatives of the outputs by every bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.shapes import BATCH
from npylstm.parity.corrections import Cell, Correction, Found, Subject, count_different
from npylstm.parity.mistakes.outputs import ROUNDINGS, relative_mismatch, rounded_layers
from npylstm.parity.variants import CachedRun
from npylstm.spec import LayerSpec

__all__ = ["one_bias_missing", "two_biases_rounded"]


_MOST_WORK = 30_000_000  # gate values computed for one set of derivatives
_ITERATIONS = 6
_STEP = 2.0**-9  # of a bias, for a slope: far above float32's rounding, small against a gate's bend
_ROUNDED = 2.0**-8  # largest relative change of a sum by rounding two biases to 8 bits or more


def two_biases_rounded(subject: Subject) -> Found:
    """All weights were stored with fewer bits, the two biases of every cell separately."""
    if relative_mismatch(subject) > 3e-2:
        return
    for kind, rounded in ROUNDINGS:
        layers = rounded_layers(subject, [*subject.layers], rounded)
        whole = tuple({**subject.layers, **layers}.values())
        cells = _summed(Subject(replace(subject.spec, layers=whole), ()).cells)
        found = _fit(subject, cells, layers)
        if found is None:
            continue
        changes, moved, free, data = found
        if moved > _ROUNDED:
            continue
        yield Correction(
            None, {"type": kind}, f"in all layers, use weights of float32, not of {kind}",
            changes, free=free, data=data,
        )  # fmt: skip


def one_bias_missing(subject: Subject) -> Found:
    """One of two biases is missing, or added twice.

    Source: pytorch.org nn.LSTM (bias_ih, bias_hh).
    """
    for site in subject.sites:
        cells = _summed(site.cells)
        found = _fit(subject, cells, {}) if len(cells) == len(site.cells) else None
        if found is not None:
            changes, _, free, data = found
            where = site.label or "all layers"
            yield Correction(
                site.label, {"of": "one of two"},
                f"in {where}, check the bias: where the framework has two, add both once",
                changes, free=free, data=data,
            )  # fmt: skip


def _summed(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return the cells that store one bias."""
    return tuple(
        c for c in cells if c.layer.use_bias and not any(k[:3] == "rb_" for k in c.weights)
    )


def _fit(
    subject: Subject, cells: Sequence[Cell], others: Mapping[str, LayerSpec]
) -> tuple[dict[str, LayerSpec], float, int, int] | None:
    """Fit the biases of some cells; ``others`` replaces other layers.

    Returns
    -------
    tuple or None
        The layers, the largest relative change of a bias, the count of biases and of data; None if
        there are too few data or no fit.
    """
    free = sum(cell.weights[k].size for cell in cells for k in _names(cell))
    tape = _enough(subject, free)
    if tape is None:
        return None
    target = _flat(tape.example.outputs, subject)
    start = np.concatenate([c.weights[k] for c in cells for k in _names(c)]).astype(np.float64)
    step = _STEP * max(float(np.abs(start).max()), 0.1)

    def layers(biases: Array) -> dict[str, LayerSpec]:
        own = Subject(replace(tape.spec, layers=tuple({**subject.layers, **others}.values())), ())
        return {**others, **own.put(_with_biases(cells, biases))}

    def outputs(tape: CachedRun, several: Sequence[Array]) -> list[Array]:
        made = tape.run_variants([layers(b) for b in several])
        return [np.full(target.size, np.nan) if m is None else _flat(m, subject) for m in made]

    biases = start
    (value,) = outputs(tape, [biases])
    first = float(np.sum((value - target) ** 2))
    for number in range(_ITERATIONS):
        moved = outputs(tape, [biases + d for d in step * np.eye(free)])
        slopes = (np.stack(moved, axis=1) - value[:, None]) / step
        if not (np.isfinite(slopes).all() and np.isfinite(value).all()):
            return None
        move = np.linalg.lstsq(slopes, target - value, rcond=1e-7)[0]
        (new,) = outputs(tape, [biases + move])
        before, after = (float(np.sum((v - target) ** 2)) for v in (value, new))
        if not after < before:
            break
        biases, value = biases + move, new
        if after > (0.5, 0.05)[number > 0] * first:
            return None
        if after > 0.5 * before:
            break
    relative = float(np.abs(biases - start).max() / max(np.abs(start).max(), 1e-30))
    return layers(biases), relative, free, count_different(target[:, None])


def _enough(subject: Subject, free: int) -> CachedRun | None:
    """Return samples with 1.5 times as many data as parameters; None if that is too much work."""
    whole = subject.tapes[0]
    name = subject.spec.outputs[0]
    outputs = whole.example.outputs
    data = sum(y.size for y in outputs.values())
    finite = all(np.isfinite(y).all() for y in outputs.values())
    rows = subject.spec.count_samples(whole.example.inputs)
    needed = min(rows, -(-3 * free * rows // (2 * max(data, 1))))
    widest = max(y.size // rows for y in whole.tensors.values())
    work = free * needed * widest * 4
    if (
        not free
        or data <= free
        or not finite
        or work > _MOST_WORK
        or BATCH not in subject.spec.shapes[name]
    ):
        return None
    return CachedRun(subject.spec, whole.example.rows(subject.spec, range(needed)))


def _names(cell: Cell) -> list[str]:
    return [f"b_{gate}" for gate in cell.layer.gates]


def _with_biases(cells: Sequence[Cell], biases: Array) -> Iterator[Cell]:
    start = 0
    for cell in cells:
        own = {}
        for name in _names(cell):
            size = cell.weights[name].size
            own[name] = biases[start : start + size]
            start += size
        yield cell.with_weights(**own)


def _flat(outputs: Mapping[str, Array], subject: Subject) -> Array:
    return np.concatenate([outputs[n].ravel() for n in subject.spec.outputs]).astype(np.float64)
