"""Mistakes about the time axis: its direction, its position, a shift, the returned step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.arithmetic import Reduce
from npylstm.ops.base import Operation
from npylstm.ops.indexing import Flip, Select
from npylstm.ops.pointwise import Identity
from npylstm.ops.shapes import BATCH
from npylstm.parity.corrections import Cell, Correction, Detail, Found, Run, Subject
from npylstm.parity.examples import Example
from npylstm.parity.mistakes.graphs import insert_behind, of_graph, rewire, with_layer
from npylstm.spec import Edge, LayerSpec, ModelSpec, TensorSpec

__all__ = [
    "both_forwards", "direction", "last_step", "layout", "other_step", "sequence_order",
    "time_shift",
]  # fmt: skip

Options = Iterable[tuple[Detail, Cell]]
Arrays = dict[str, Array]


def time_axes(tensors: Iterable[TensorSpec]) -> dict[str, int]:
    """Return the time axis of every tensor that has one."""
    return {t.name: t.time_axis for t in tensors if t.time_axis is not None}


def direction(subject: Subject) -> Found:
    """A layer reads the steps in the other direction.

    ``go_backwards`` was not stored, or a sequence was reversed once too often.
    Source: keras.io LSTM (go_backwards).
    """

    def change(cell: Cell) -> Options:
        if not cell.way:
            layer = replace(cell.layer, go_backwards=not cell.layer.go_backwards)
            yield (
                {"rule": "backwards" if layer.go_backwards else "forwards"},
                replace(cell, layer=layer),
            )

    fix = "in {where}, read the steps {rule}"
    yield from subject.in_cells(change, fix)
    # Read in the other direction, with the outputs in the order of the input.
    for cell in subject.cells:
        if not cell.way and cell.layer.return_sequences:
            turned = replace(cell.layer, go_backwards=not cell.layer.go_backwards)
            named = replace(subject.layers[cell.name], layer=turned)
            spec = with_layer(subject.spec, named)
            flip = Flip((turned.time_axis,))
            spec = spec and insert_behind(spec, cell.name, ((flip, (0,)),))
            rule = "backwards" if turned.go_backwards else "forwards"
            said = f"{fix.format(where=cell.name, rule=rule)}, and keep the order of the outputs"
            yield from of_graph(cell.name, {"rule": rule, "of": "reading alone"}, said, spec)


def both_forwards(subject: Subject) -> Found:
    """Both halves of a bidirectional layer read forwards.

    A port builds two equal layers and does not reverse the second one's input.
    """
    for named in subject.spec.layers:
        spec = _taken_apart(subject.spec, named, backwards=False)
        fix = f"in {named.name}, let the backward half read from the last step to the first"
        yield from of_graph(named.name, {"rule": "both forwards"}, fix, spec)


def sequence_order(subject: Subject) -> Found:
    """A backward layer's output is in the order of computation, or was reversed once too often.

    Keras returns the sequence of a ``go_backwards`` layer as computed, and reverses it inside
    Bidirectional; ONNX and PyTorch return the order of the input. Source: keras.io Bidirectional.
    """
    for named in subject.spec.layers:
        layer = named.layer
        if not layer.returns_sequence:
            continue
        if len(layer.recurrent_parts()) == 1:
            flip = Flip((layer.time_axis,))
            spec = insert_behind(subject.spec, named.name, ((flip, (0,)),))
        else:
            spec = _taken_apart(subject.spec, named)
        fix = f"in {named.name}, turn the backward sequence into the input's order"
        yield from of_graph(named.name, {}, fix, spec)
    axes = time_axes(subject.spec.output_specs)
    if axes:
        yield Correction(
            None, {"of": "outputs"}, "reverse the steps of the outputs",
            around=lambda run, example: {
                k: np.flip(y, axes[k]) if k in axes else y
                for k, y in run(example).tensors.items()
            },
        )  # fmt: skip


def _taken_apart(
    spec: ModelSpec,
    named: LayerSpec,
    backwards: bool = True,
    select: int | None = None,
) -> ModelSpec | None:
    """Split a bidirectional layer in two; the backward sequence is in the order of computation.

    None if there are no two layers, or if their outputs are not merged into one.

    Parameters
    ----------
    backwards
        Whether the backward half reads from the end.
    select
        A step of each half, in the order of its computation, that replaces its last output.
    """
    layer = named.layer
    parts = layer.recurrent_parts()
    features = 2 if layer.returns_sequence and select is None else 1
    merge = layer.merging(features + 1)
    if merge is None or any(half.return_state for half in parts.values()):
        return None
    halves: list[LayerSpec] = []
    for prefix, half in parts.items():
        own = replace(
            half, go_backwards=half.go_backwards and backwards,
            return_sequences=half.return_sequences or select is not None,
        )  # fmt: skip
        weights = {
            k.removeprefix(prefix): a for k, a in named.weights.items() if k.startswith(prefix)
        }
        halves.append(LayerSpec(f"{named.name}.{prefix.rstrip('/')}", own, weights))
    last = LayerSpec(f"{named.name}.merge", merge)
    step = LayerSpec(f"{named.name}.step", Select(layer.time_axis, select or 0))
    edges: list[Edge] = []
    for edge in spec.edges:
        if edge.layer != named.name:
            edges.append(edge)
            continue
        made: list[str] = []
        for half_spec, reads in zip(halves, layer.inputs_of_parts(edge.inputs), strict=True):
            name = f"{edge.name}.{half_spec.name.rpartition('.')[2]}"
            edges.append(Edge(half_spec.name, tuple(reads), (name,)))
            if select is not None:
                edges.append(Edge(step.name, (name,), (f"{name}.step",)))
                name = f"{name}.step"
            made.append(name)
        edges.append(Edge(last.name, tuple(made), edge.outputs))
    return rewire(spec, edges, [*spec.layers, *halves, step, last])


def layout(subject: Subject) -> Found:
    """The batch and time axes are exchanged.

    PyTorch's recurrent modules read (steps, batch, features) unless ``batch_first=True``, but
    (batch, steps, features) is no error. Source: pytorch.org nn.LSTM (batch_first).
    """

    def in_cell(cell: Cell) -> Options:
        layer = replace(cell.layer, time_major=not cell.layer.time_major)
        yield {"of": "layer"}, replace(cell, layer=layer)

    inputs, outputs = time_axes(subject.spec.inputs), time_axes(subject.spec.output_specs)
    batch = {
        t.name: t.shape.index(BATCH)
        for t in (*subject.spec.inputs, *subject.spec.output_specs)
        if BATCH in t.shape
    }

    if inputs and batch.keys() >= inputs.keys() | outputs.keys():
        yield Correction(
            None, {"rule": "exchanged"}, "exchange the axes of batch and time at the inputs",
            around=lambda run, example: _exchanged(run, example, inputs, outputs, batch, False),
        )  # fmt: skip
        yield Correction(
            None, {"rule": "reshaped"},
            "transpose the axes of batch and time at the inputs instead of reshaping them",
            around=lambda run, example: _exchanged(run, example, inputs, outputs, batch, True),
        )  # fmt: skip
    for correction in subject.in_cells(
        in_cell, "in {where}, read the first axis as the batch, the second as time (batch_first)"
    ):
        # Both directions of a bidirectional layer read the same axes.
        if correction.layer is None or "/" not in correction.layer:
            yield correction


def _exchanged(
    run: Run, example: Example, inputs: dict[str, int], outputs: dict[str, int],
    batch: dict[str, int], reshaped: bool,
) -> Arrays:  # fmt: skip
    def turn(x: Array, name: str, axes: dict[str, int]) -> Array:
        turned = x.swapaxes(axes[name], batch[name])
        return x.reshape(turned.shape) if reshaped else np.ascontiguousarray(turned)

    turned = {k: turn(x, k, inputs) if k in inputs else x for k, x in example.inputs.items()}
    mask = None if example.mask is None else example.mask.T
    other = replace(example, inputs=turned, mask=mask)
    if any(x.shape != turned[k].shape for k, x in example.inputs.items()):
        other = replace(other, state={}, has_state=False)  # its batch size differs
    elif reshaped:
        raise NpylstmError("as many samples as steps: a reshaping changes nothing")
    return {k: turn(y, k, outputs) if k in outputs else y for k, y in run(other).tensors.items()}


def time_shift(subject: Subject) -> Found:
    """Inputs or outputs are late or early by some steps, filled with zeros.

    A streaming program has a delay, targets are shifted by one as in training, or a loop is off by
    one.
    """
    inputs, outputs = time_axes(subject.spec.inputs), time_axes(subject.spec.output_specs)
    for steps in (1, -1, 2, -2, 3, -3):
        late = "late" if steps > 0 else "early"
        how = f"{abs(steps)} step{'s' if abs(steps) > 1 else ''} {late}"
        if outputs:

            def out(run: Run, example: Example, steps: int = steps) -> Arrays:
                made = run(example).tensors
                return {k: _shifted(y, outputs[k], steps) if k in outputs else y
                        for k, y in made.items()}  # fmt: skip

            yield Correction(
                None, {"steps": steps, "of": "outputs"}, f"the outputs come {how}: shift them back",
                around=out,
            )  # fmt: skip
        if inputs:

            def into(run: Run, example: Example, steps: int = steps) -> Arrays:
                moved = {k: _shifted(x, inputs[k], steps) if k in inputs else x
                         for k, x in example.inputs.items()}  # fmt: skip
                return run(replace(example, inputs=moved)).tensors

            yield Correction(
                None, {"steps": steps, "of": "inputs"}, f"the inputs come {how}: shift them back",
                around=into,
            )  # fmt: skip


def _shifted(x: Array, axis: int, steps: int) -> Array:
    """Return the array shifted along an axis and filled with zeros."""
    y = np.zeros_like(x)
    size = x.shape[axis]
    if abs(steps) < size:
        kept = range(0, size - steps) if steps > 0 else range(-steps, size)
        place = slice(steps, size) if steps > 0 else slice(0, size + steps)
        np.moveaxis(y, axis, 0)[place] = np.moveaxis(x.take(kept, axis), axis, 0)
    return y


def last_step(subject: Subject) -> Found:
    """Another step than the last is returned, or the mean over the steps.

    ``y[:, -2]``; ``y[0]`` of a batch-first output; the mean instead of the last step; ``y[:, -1]``
    of a bidirectional layer, where the backward half has read only one step.
    """
    yield from _steps(subject, (-2, 0, 1, -3, -1))
    yield from _pooled(subject)


def other_step(subject: Subject) -> Found:
    """Any other step is returned."""
    steps = max((s for tape in subject.tapes for s in _sizes(subject, tape.example)), default=0)
    yield from _steps(subject, range(2, min(steps, 48)))


def _sizes(subject: Subject, example: Example) -> Iterator[int]:
    for name, axis in time_axes(subject.spec.inputs).items():
        yield example.inputs[name].shape[axis]


def _steps(subject: Subject, steps: Iterable[int]) -> Found:
    for named in subject.spec.layers:
        layer = named.layer
        last_alone = layer.is_recurrent and not layer.returns_sequence
        both = len(layer.recurrent_parts()) > 1
        taken = _taken_step(subject, named)
        sequences: ModelSpec | None = None
        if last_alone:
            sequences = with_layer(subject.spec, replace(named, layer=_sequences(layer, True)))
        for step in steps:
            fix = f"in {named.name}, return the last step, not step {step}"
            if taken is not None and step != taken[1]:
                other = replace(named, layer=Select(taken[0], step))
                yield Correction(named.name, {"step": step}, fix, {named.name: other})
            elif last_alone and (both or step != -1):
                select = Select(layer.time_axis, step)
                spec = sequences and insert_behind(sequences, named.name, ((select, (0,)),))
                yield from of_graph(named.name, {"step": step}, fix, spec)
                if step != -1:
                    spec = _taken_apart(subject.spec, named, select=step)
                    detail = {"step": step, "of": "each half"}
                    yield from of_graph(named.name, detail, fix, spec)


def _sequences(layer: Operation, on: bool) -> Operation:
    parts = layer.recurrent_parts().items()
    return layer.with_recurrent_parts({k: replace(p, return_sequences=on) for k, p in parts})


def _taken_step(subject: Subject, named: LayerSpec) -> tuple[int, int] | None:
    """Return the time axis and the step that a layer takes; None if it takes none."""
    axis, how = named.layer.reduction or (0, "")
    if not isinstance(how, int):
        return None
    (edge, *_) = subject.edges_of(named.name)
    time_axis = TensorSpec("", subject.spec.shapes[edge.inputs[0]]).time_axis
    return (axis, how) if axis == time_axis else None


def _pooled(subject: Subject) -> Found:
    for named in subject.spec.layers:
        axis, own = named.layer.reduction or (0, 0)
        pools = [(rule, Reduce(rule, (axis,))) for rule in ("mean", "max", "sum") if rule != own]
        where, found = f"in {named.name}, return", list[tuple[Detail, str, Operation]]()
        if isinstance(own, str):
            said = f"{where} the {own} over the steps, not one step"
            found = [({"step": step}, said, Select(axis, step)) for step in (-1, 0)]
            found += [({"rule": k}, f"{where} the {own}, not the {k}", pool) for k, pool in pools]
        elif _taken_step(subject, named):
            said = f"{where} the last step, not the {{}} over the steps"
            found = [({"rule": rule}, said.format(rule), pool) for rule, pool in pools]
        for detail, fix, layer in found:
            yield Correction(named.name, detail, fix, {named.name: replace(named, layer=layer)})
        if found and not isinstance(own, str):
            yield from _final_of_both(subject, named)


def _final_of_both(subject: Subject, select: LayerSpec) -> Found:
    """Return each direction's last output instead of the last step of the sequence."""
    (edge, *_) = subject.edges_of(select.name)
    for call in subject.spec.edges:
        layer = subject.layers[call.layer].layer
        if call.outputs[0] == edge.inputs[0] and len(layer.recurrent_parts()) > 1:
            own = replace(subject.layers[call.layer], layer=_sequences(layer, False))
            layers = [
                own if n.name == own.name else replace(n, layer=Identity())
                if n.name == select.name else n
                for n in subject.spec.layers
            ]  # fmt: skip
            spec = rewire(subject.spec, subject.spec.edges, layers)
            fix = f"in {call.layer}, take the last step of the sequence, not that of each half"
            yield from of_graph(call.layer, {"rule": "last of each direction"}, fix, spec)
