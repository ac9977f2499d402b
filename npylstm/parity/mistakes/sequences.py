"""Mistakes about the time axis: its direction, its position, a shift, the returned step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.indexing import Flip, Select
from npylstm.ops.pointwise import Identity
from npylstm.ops.recurrent import Recurrent
from npylstm.ops.shapes import BATCH
from npylstm.ops.shaping import Concatenate
from npylstm.parity.corrections import Cell, Correction, Detail, Run, Subject
from npylstm.parity.examples import Example
from npylstm.parity.mistakes.graphs import insert_behind, rewire, with_layer
from npylstm.spec import Edge, LayerSpec, ModelSpec, TensorSpec

__all__ = [
    "both_forwards", "direction", "last_step", "layout", "other_step", "sequence_order",
    "time_shift",
]  # fmt: skip

Found = Iterator[Correction]
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
            axis = 0 if cell.layer.time_major else 1
            spec = spec and insert_behind(spec, cell.name, ((Flip((axis,)), (0,)),))
            if spec is not None:
                rule = "backwards" if turned.go_backwards else "forwards"
                yield Correction(
                    cell.name, {"rule": rule, "of": "reading alone"},
                    f"{fix.format(where=cell.name, rule=rule)}, and keep the order of the outputs",
                    spec=spec,
                )  # fmt: skip


def both_forwards(subject: Subject) -> Found:
    """Both halves of a bidirectional layer read forwards.

    A port builds two equal layers and does not reverse the second one's input.
    """
    for named in subject.spec.layers:
        if isinstance(named.layer, Bidirectional):
            spec = _taken_apart(subject.spec, named, named.layer, backwards=False)
            if spec is not None:
                yield Correction(
                    named.name, {"rule": "both forwards"},
                    f"in {named.name}, let the backward half read from the last step to the first",
                    spec=spec,
                )  # fmt: skip


def sequence_order(subject: Subject) -> Found:
    """A backward layer's output is in the order of computation, or was reversed once too often.

    Keras returns the sequence of a ``go_backwards`` layer as computed, and reverses it inside
    Bidirectional; ONNX and PyTorch return the order of the input. Source: keras.io Bidirectional.
    """
    for named in subject.spec.layers:
        layer = named.layer
        if isinstance(layer, Recurrent) and layer.return_sequences:
            axis = 0 if layer.time_major else 1
            spec = insert_behind(subject.spec, named.name, ((Flip((axis,)), (0,)),))
        elif isinstance(layer, Bidirectional) and layer.return_sequences:
            spec = _taken_apart(subject.spec, named, layer)
        else:
            continue
        if spec is not None:
            yield Correction(
                named.name, {},
                f"in {named.name}, turn the backward sequence into the input's order", spec=spec,
            )  # fmt: skip
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
    layer: Bidirectional,
    backwards: bool = True,
    select: int | None = None,
) -> ModelSpec | None:
    """Split a bidirectional layer in two; the backward sequence is in the order of computation.

    Parameters
    ----------
    backwards
        Whether the backward half reads from the end.
    select
        A step of each half, in the order of its computation, that replaces its last output.
    """
    if layer.merge_mode == "none" or layer.directions["forward"].return_state:
        return None
    halves: list[LayerSpec] = []
    for way, half in layer.directions.items():
        own = replace(
            half, go_backwards=half.go_backwards and backwards,
            return_sequences=half.return_sequences or select is not None,
        )  # fmt: skip
        weights = {
            k.removeprefix(f"{way}/"): a for k, a in named.weights.items() if k.startswith(way)
        }
        halves.append(LayerSpec(f"{named.name}.{way}", own, weights))
    features = 2 if halves[0].layer.return_sequences and select is None else 1  # type: ignore[attr-defined]
    merge = {"sum": "add", "mul": "multiply", "ave": "average"}.get(layer.merge_mode)
    last = LayerSpec(
        f"{named.name}.merge", Concatenate(features) if merge is None else Arithmetic(merge)
    )
    step = LayerSpec(f"{named.name}.step", Select(0 if layer.time_major else 1, select or 0))
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
        sequences: ModelSpec | None = None
        if isinstance(layer, (Recurrent, Bidirectional)) and not layer.return_sequences:
            sequences = with_layer(subject.spec, replace(named, layer=_sequences(layer, True)))
        for step in steps:
            fix = f"in {named.name}, return the last step, not step {step}"
            if isinstance(layer, Select) and _selects_time(subject, named) and step != layer.index:
                other = replace(named, layer=replace(layer, index=step))
                yield Correction(named.name, {"step": step}, fix, {named.name: other})
            elif isinstance(layer, (Recurrent, Bidirectional)) and not layer.return_sequences:
                if step == -1 and isinstance(layer, Recurrent):
                    continue
                axis = 0 if layer.time_major else 1
                spec = sequences and insert_behind(
                    sequences, named.name, ((Select(axis, step), (0,)),)
                )
                if spec is not None:
                    yield Correction(named.name, {"step": step}, fix, spec=spec)
                if isinstance(layer, Bidirectional) and step != -1:
                    apart = _taken_apart(subject.spec, named, layer, select=step)
                    if apart is not None:
                        detail = {"step": step, "of": "each half"}
                        yield Correction(named.name, detail, fix, spec=apart)


def _sequences(layer: Recurrent | Bidirectional, on: bool) -> Recurrent | Bidirectional:
    if isinstance(layer, Recurrent):
        return replace(layer, return_sequences=on)
    halves = {f"{way}_layer": replace(half, return_sequences=on)
              for way, half in layer.directions.items()}  # fmt: skip
    changed: Bidirectional = replace(layer, **halves)  # type: ignore[arg-type]
    return changed


def _selects_time(subject: Subject, named: LayerSpec) -> bool:
    (edge, *_) = subject.edges_of(named.name)
    shape = subject.spec.shapes[edge.inputs[0]]
    return TensorSpec("", shape).time_axis == getattr(named.layer, "axis", None)


def _pooled(subject: Subject) -> Found:
    for named in subject.spec.layers:
        layer = named.layer
        if isinstance(layer, Select) and _selects_time(subject, named):
            for operation in ("mean", "max", "sum"):
                pooled = replace(named, layer=Reduce(operation, (layer.axis,)))
                yield Correction(
                    named.name, {"rule": operation},
                    f"in {named.name}, return the last step, not the {operation} over the steps",
                    {named.name: pooled},
                )  # fmt: skip
            yield from _final_of_both(subject, named)
        elif isinstance(layer, Reduce) and not layer.keepdims and len(layer.axes) == 1:
            for step in (-1, 0):
                selected = replace(named, layer=Select(layer.axes[0], step))
                yield Correction(
                    named.name, {"step": step},
                    f"in {named.name}, return the {layer.operation} over the steps, not one step",
                    {named.name: selected},
                )  # fmt: skip
            for operation in ("mean", "max", "sum"):
                if operation != layer.operation:
                    pooled = replace(named, layer=replace(layer, operation=operation))
                    yield Correction(
                        named.name, {"rule": operation},
                        f"in {named.name}, return the {layer.operation}, not the {operation}",
                        {named.name: pooled},
                    )  # fmt: skip


def _final_of_both(subject: Subject, select: LayerSpec) -> Found:
    """Return each direction's last output instead of the last step of the sequence."""
    (edge, *_) = subject.edges_of(select.name)
    for call in subject.spec.edges:
        layer = subject.layers[call.layer].layer
        if call.outputs[0] == edge.inputs[0] and isinstance(layer, Bidirectional):
            own = replace(subject.layers[call.layer], layer=_sequences(layer, False))
            layers = [
                own if n.name == own.name else replace(n, layer=Identity())
                if n.name == select.name else n
                for n in subject.spec.layers
            ]  # fmt: skip
            spec = rewire(subject.spec, subject.spec.edges, layers)
            if spec is not None:
                yield Correction(
                    call.layer, {"rule": "last of each direction"},
                    f"in {call.layer}, take the last step of the sequence, not that of each half",
                    spec=spec,
                )  # fmt: skip
