"""Mistakes about masks and lengths: which steps are masked, and the outputs of masked steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.masking import Masking
from npylstm.ops.shaping import Full
from npylstm.parity.corrections import Cell, Correction, Detail, Found, Run, Subject
from npylstm.parity.examples import Example
from npylstm.parity.mistakes.graphs import of_graph, rewire
from npylstm.spec import Edge, LayerSpec, ModelSpec

__all__ = ["mask"]

_MOVED = 1e-6  # some units of float32

Options = Iterable[tuple[Detail, Cell]]
Arrays = dict[str, Array]

_UNMATCHED = 3.0e38  # a mask value that no input has
_VALUES = (0.0, -1.0, 1.0, -10.0, -99.0, -100.0, -999.0, 99.0, 999.0)


def mask(subject: Subject) -> Found:
    """A mask is ignored, computed from another value, or masked steps have other outputs.

    Keras repeats the last output at masked steps (or returns zeros, ``zero_output_for_mask``) and
    keeps the state. PyTorch's packed sequences return zeros. A port of the layers alone has no
    mask. Source: keras.io guide "Masking and padding", pytorch.org pack_padded_sequence.
    """
    yield from _ignored(subject)
    yield from _other_value(subject)
    yield from _other_rule(subject)
    yield from _lengths(subject)


def _ignored(subject: Subject) -> Found:
    makers = {
        t: edge.layer
        for edge in subject.spec.edges
        for t in edge.outputs
        if t.endswith("/mask") and subject.layers[edge.layer].layer.masked_value is not None
    }
    for tensor, layer in makers.items():
        fix = f"use the mask that {layer} makes"
        yield from of_graph(layer, {"rule": "ignored"}, fix, _all_count(subject.spec, tensor))
        readers = [e for e in subject.spec.edges if tensor in e.inputs]
        for reader in readers if len(readers) > 1 else ():
            spec = _all_count(subject.spec, tensor, reader)
            where = f"{fix} in {reader.layer}"
            yield from of_graph(reader.layer, {"rule": "ignored"}, where, spec)
        for reader in readers if len(readers) > 2 else ():
            spec = _all_count(subject.spec, tensor, *(e for e in readers if e != reader))
            detail = {"rule": "ignored", "of": "all but one"}
            yield from of_graph(layer, detail, f"{fix}, not in {reader.layer} alone", spec)


def _all_count(spec: ModelSpec, tensor: str, *only: Edge) -> ModelSpec | None:
    """Replace a mask by ones, in all calls that read it or only in some."""
    rank = len(spec.shapes[tensor])
    sizes = tuple((0, axis) for axis in range(rank))
    ones = LayerSpec("ones.for.mask", Full(sizes, 1.0))
    edges: list[Edge] = []
    for edge in spec.edges:
        if not only or edge in only:
            reads = tuple(ones.name if t == tensor else t for t in edge.inputs)
            edge = replace(edge, inputs=reads)
        edges.append(edge)
        if tensor in edge.outputs:
            edges.append(Edge(ones.name, (tensor,), (ones.name,)))
    return rewire(spec, edges, [*spec.layers, ones])


def _other_value(subject: Subject) -> Found:
    for named in subject.spec.layers:
        own = named.layer.masked_value
        if own is None or named.layer.vocabulary_size is not None:
            continue
        yield Correction(
            named.name, {"rule": "left out"}, f"mask the steps that {named.name} finds",
            {named.name: replace(named, layer=Masking(_UNMATCHED))},
        )  # fmt: skip
        tensors = [t for e in subject.edges_of(named.name) for t in e.inputs]
        seen = [tape.tensors[t] for tape in subject.tapes for t in tensors]
        for value in dict.fromkeys([*_constant_steps(seen), *_VALUES]):
            if value != own:
                yield Correction(
                    named.name, {"rule": "value", "value": value},
                    f"in {named.name}, mask the value {own:g}, not {value:g}",
                    {named.name: replace(named, layer=Masking(value))},
                )  # fmt: skip


def _constant_steps(arrays: Iterable[Array]) -> list[float]:
    """Return values that fill several whole steps: likely padding, most frequent first."""
    counts: dict[float, int] = {}
    for x in arrays:
        if x.ndim < 2:
            continue
        rows = x.reshape(-1, x.shape[-1])
        same = rows[(rows == rows[:, :1]).all(1), 0]
        values, times = np.unique(same[np.isfinite(same)], return_counts=True)
        for value, count in zip(values, times, strict=True):
            counts[float(value)] = counts.get(float(value), 0) + int(count)
    frequent = [v for v, n in sorted(counts.items(), key=lambda item: -item[1]) if n > 1]
    return frequent[:4]


def _other_rule(subject: Subject) -> Found:
    """Masked steps return zeros instead of the last output, or vice versa."""
    masked = any(cell.layer.masked for cell in subject.cells)
    if not masked and all(e.mask is None for e in subject.examples):
        return

    def change(cell: Cell) -> Options:
        zero = not cell.layer.zero_output_for_mask
        layer = replace(cell.layer, zero_output_for_mask=zero)
        yield {"rule": "zeros" if zero else "repeats"}, replace(cell, layer=layer)

    yield from subject.in_cells(
        change, "in {where}, masked steps give {rule} on the other side: use one rule"
    )


def _lengths(subject: Subject) -> Found:
    if any(e.mask is not None for e in subject.examples):
        yield Correction(
            None, {"rule": "lengths ignored"}, "use the lengths of the sequences",
            around=lambda run, example: run(replace(example, mask=None)).tensors,
        )  # fmt: skip
        return
    if any(cell.layer.masked for cell in subject.cells) or not subject.cells:
        return
    # This model masks nothing; the other program may mask padding.
    (first, *others) = subject.spec.inputs
    if others or first.time_axis is None:
        return
    values = _constant_steps([e.inputs[first.name] for e in subject.examples])
    if first.integer:
        values = [0.0]
    for value in values:
        for zero in (False, True):
            cells = [
                replace(c, layer=replace(c.layer, zero_output_for_mask=zero)) for c in subject.cells
            ]
            rule = "zeros" if zero else "repeats"

            def around(run: Run, example: Example, value: float = value) -> Arrays:
                x = np.moveaxis(example.inputs[first.name], first.time_axis or 0, 1)
                # The runs that measure rounding perturb the padding, too, by one ulp.
                other: Array = np.abs(x - value) > _MOVED * max(1.0, abs(value))
                counts: Array = other if x.ndim == 2 else np.any(other, axis=-1)
                if counts.ndim != 2 or counts.all():
                    raise NpylstmError("nothing to mask")
                return run(replace(example, mask=counts)).tensors

            yield Correction(
                None, {"rule": f"masked, {rule}", "value": value},
                f"steps of the value {value:g} are masked on the other side ({rule} there)",
                subject.put(cells), around=around,
            )  # fmt: skip
