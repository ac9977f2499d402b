"""Mistakes about the recurrent state: its initial value, and its reset."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH
from npylstm.parity.corrections import Correction, Found, Run, Subject
from npylstm.parity.examples import Example
from npylstm.parity.mistakes.graphs import insert_before, of_graph, rewire
from npylstm.parity.mistakes.sequences import time_axes
from npylstm.runtime.numpy_engine import Node

__all__ = ["initial_state", "state_reset", "state_reset_inside", "state_swapped"]

Arrays = dict[str, Array]


def state_swapped(subject: Subject) -> Found:
    """The states h and c are exchanged.

    Keras orders [h, c], TensorFlow 1's LSTMStateTuple (c, h). Source: keras.io LSTM
    (initial_state), tensorflow.org compat.v1.nn.rnn_cell.LSTMStateTuple.
    """
    fix = "give the initial state of {where} in the order h, c"
    lstms = _stateful(subject, swap=True)
    for names in _each_and_all(lstms):
        label = names[0] if len(names) == 1 else None

        def around(run: Run, example: Example, names: list[str] = names) -> Arrays:
            state = {
                k: _swapped(entries) if k in names else entries
                for k, entries in example.state.items()
            }
            return run(replace(example, state=state)).tensors

        yield Correction(label, {}, fix.format(where=" and ".join(names)), around=around)
    for named in subject.spec.layers:  # initial states computed in the graph
        edges = [e for e in subject.edges_of(named.name) if named.layer.initial_states(e.inputs)]
        shapes = named.layer.state_shapes()
        if edges and [*shapes] == ["h", "c"] and shapes["h"] == shapes["c"]:
            swapped = [
                replace(e, inputs=(e.inputs[0], e.inputs[2], e.inputs[1], *e.inputs[3:]))
                if e in edges
                else e
                for e in subject.spec.edges
            ]
            spec = rewire(subject.spec, swapped)
            yield from of_graph(named.name, {}, fix.format(where=named.name), spec)


def _swapped(entries: dict[str, Array]) -> dict[str, Array]:
    """Return the state with h and c exchanged in every direction."""
    other = {"h": "c", "c": "h"}
    return {k: entries[f"{k[:-1]}{other[k[-1]]}"] if k[-1] in other else a
            for k, a in entries.items()}  # fmt: skip


def _stateful(subject: Subject, swap: bool = False) -> list[str]:
    """Return the calls with an initial state; with ``swap`` only those of an LSTM."""
    if not any(e.has_state for e in subject.examples):
        return []
    shapes = subject.spec.state_shapes()
    if not swap:
        return [*shapes]
    return [
        name for name, own in shapes.items()
        if any(k.endswith("c") for k in own) and len(set(own.values())) == 1
    ]  # fmt: skip


def _each_and_all(names: list[str]) -> list[list[str]]:
    return ([names] if len(names) > 1 else []) + [[name] for name in names]


def initial_state(subject: Subject) -> Found:
    """An initial state is ignored in whole or in part, or an old state is used instead of zeros.

    A ``stateful`` layer that was not reset before the next batch; a loop over samples that keeps
    the state; a decoder that drops c. Source: keras.io (reset_states), pytorch.org nn.LSTM (h_0).
    """
    for names in _each_and_all(_stateful(subject)):
        where = " and ".join(names)
        label = names[0] if len(names) == 1 else None
        for lost in ("", "h", "c"):
            rule = f"{lost} ignored" if lost else "ignored"
            if lost == "c" and not _stateful(subject, swap=True):
                continue
            yield Correction(
                label, {"rule": rule},
                f"use the initial state of {where}: {lost or 'all of it'} was left at zero",
                around=functools.partial(_run_without, names, lost),
            )  # fmt: skip
    yield from _states_of_the_graph(subject)
    if not any(e.has_state for e in subject.examples) and subject.spec.state_shapes():
        yield Correction(
            None, {"rule": "second pass"}, "reset the state before a sequence is run again",
            around=_second_pass,
        )  # fmt: skip
        yield Correction(
            None, {"rule": "carried from sample to sample"}, "reset the state before every sample",
            around=lambda run, example: _sample_by_sample(subject, run, example),
        )  # fmt: skip
        yield Correction(
            None, {"rule": "ones"}, "begin with a state of zeros, not of ones", around=_from_ones,
        )  # fmt: skip


def _run_without(names: list[str], lost: str, run: Run, example: Example) -> Arrays:
    return run(_without(example, names, lost)).tensors


def _without(example: Example, names: list[str], lost: str) -> Example:
    state = {
        k: {n: np.zeros_like(a) if k in names and n.endswith(lost) else a for n, a in own.items()}
        for k, own in example.state.items()
    }
    return replace(example, state=state)


def _states_of_the_graph(subject: Subject) -> Found:
    """Yield corrections for states that another layer computes, as in an encoder and decoder."""
    zero = ((Arithmetic("multiply", 0.0), (0,)),)
    for named in subject.spec.layers:
        edges = [e for e in subject.edges_of(named.name) if named.layer.initial_states(e.inputs)]
        if not edges:
            continue
        count = len(named.layer.initial_states(edges[0].inputs))
        choices = [("ignored", range(1, count + 1))]
        if [*named.layer.state_shapes()] == ["h", "c"]:
            choices += [("h ignored", range(1, 2)), ("c ignored", range(2, 3))]
        if len(named.layer.recurrent_parts()) == 2:
            half = count // 2
            choices += [("forward ignored", range(1, half + 1)),
                        ("backward ignored", range(half + 1, count + 1))]  # fmt: skip
        for rule, which in choices:
            spec = insert_before(subject.spec, named.name, dict.fromkeys(which, zero))
            fix = f"begin {named.name} with the state that the model hands over ({rule})"
            yield from of_graph(named.name, {"rule": rule}, fix, spec)


def _second_pass(run: Run, example: Example) -> Arrays:
    after = run(example).state
    return run(replace(example, state=after, has_state=True)).tensors


def _from_ones(run: Run, example: Example) -> Arrays:
    state = {
        k: {n: np.ones_like(a) for n, a in own.items()} for k, own in run(example).state.items()
    }
    return run(replace(example, state=state, has_state=True)).tensors


_MOST_SAMPLES = 64


def _sample_by_sample(subject: Subject, run: Run, example: Example) -> Arrays:
    count = subject.spec.count_samples(example.inputs)
    if count < 2 or count > _MOST_SAMPLES:
        raise NpylstmError("one sample, or too many")
    parts: list[Arrays] = []
    current = replace(example.rows(subject.spec, [0]))
    for k in range(count):
        row = example.rows(subject.spec, [k])
        ran = run(replace(row, state=current.state, has_state=current.has_state))
        parts.append(ran.tensors)
        current = replace(row, state=ran.state, has_state=True)
    return {
        t.name: np.concatenate(
            [p[t.name] for p in parts], axis=t.shape.index(BATCH) if BATCH in t.shape else 0
        )
        for t in subject.spec.output_specs
    }


_MOST_STEPS = 64


def state_reset(subject: Subject) -> Found:
    """The state is reset every k steps.

    A program runs a long sequence in chunks and does not pass the state to the next chunk.
    """
    inputs = time_axes(subject.spec.inputs)
    if not inputs or not subject.spec.state_shapes():
        return
    outputs = time_axes(subject.spec.output_specs)
    longest = max(e.inputs[k].shape[a] for e in subject.examples for k, a in inputs.items())
    onset = _onset(subject, outputs) if len(outputs) == len(subject.spec.outputs) else None
    choices = [onset] if onset else range(1, min(longest, _MOST_STEPS))
    if not outputs:  # only steps after the last reset change the outputs
        choices = [*{(longest - 1) % k: k for k in reversed(choices)}.values()]
    for steps in choices:
        if steps < longest:
            yield Correction(
                None, {"rule": "reset", "steps": steps},
                f"carry the state on: it was reset every {steps} steps",
                around=functools.partial(_in_chunks, inputs, outputs, steps),
            )  # fmt: skip


_CHUNKS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 25, 30, 32, 40, 50, 64)


def state_reset_inside(subject: Subject) -> Found:
    """A layer's state is reset every k steps, in a model that reads its whole input at once.

    After a convolution or attention, chunks of the layer's steps are not chunks of the input. If
    masked steps repeat the last output, a reset may keep that output, or not.
    """
    names = list(dict.fromkeys(cell.name for cell in subject.cells))
    longest = max(
        (tape.tensors[edge.inputs[0]].shape[subject.layers[name].layer.time_axis]
         for tape in subject.tapes for name in names for edge in subject.edges_of(name)), default=0,
    )  # fmt: skip
    for chosen in _each_and_all(names):
        repeating = any(_repeats(subject.layers[name].layer) for name in chosen)
        for steps in (k for k in _CHUNKS if k < longest):
            for spared in (False, True) if repeating else (False,):
                where = " and ".join(chosen)
                yield Correction(
                    chosen[0] if len(chosen) == 1 else None, {"rule": "reset", "steps": steps},
                    f"carry the state of {where} on: it was reset every {steps} steps",
                    around=functools.partial(_resetting, chosen, steps, spared),
                )  # fmt: skip


def _repeats(layer: Operation) -> bool:
    """Return whether a layer repeats its last output at masked steps."""
    parts = [*layer.recurrent_parts().values()]
    return len(parts) == 1 and parts[0].masked and not parts[0].zero_output_for_mask


def _resetting(names: list[str], steps: int, spared: bool, run: Run, example: Example) -> Arrays:
    def wrap(node: Node) -> Node:
        return _Resetting(node, steps, spared) if node.name in names else node

    return dict(run(example, wrap).tensors)


class _Resetting(Node):
    """A recurrent layer whose state is reset every k steps; ``spared`` keeps its last output."""

    def __init__(self, node: Node, steps: int, spared: bool) -> None:
        self.name, self.layer, self.packed = node.name, node.layer, node.packed
        self._steps, self._spared = steps, spared and _repeats(node.layer)
        self._backwards = all(p.go_backwards for p in node.layer.recurrent_parts().values())

    def compute(
        self, inputs: Sequence[Array], state: Mapping[str, Array], mask: Array | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        axis, sequences = self.layer.time_axis, self.layer.returns_sequence
        if len(self.layer.recurrent_parts()) > 1 and not sequences:
            raise NpylstmError("the last states of the two directions are of different chunks")
        masked = self.layer.own_mask(inputs) is not None
        given = slice(1, len(inputs) - masked)  # initial states from other layers
        fresh = {k: np.zeros_like(a) for k, a in state.items()}
        count = inputs[0].shape[axis]
        parts: list[tuple[Array, ...]] = []
        for start in range(0, count, self._steps):
            steps = slice(start, start + self._steps)
            if self._backwards:  # chunks come in the order of computation
                steps = slice(max(0, count - start - self._steps), count - start)
            reads = [*inputs]
            reads[0] = inputs[0][(slice(None),) * axis + (steps,)]
            if start > 0:
                reads[given] = [np.zeros_like(a) for a in inputs[given]]
            if masked:
                reads[-1] = inputs[-1][:, steps]
            own = state if start == 0 else fresh
            part, after = super().compute(reads, own, None if mask is None else mask[:, steps])
            if self._spared and parts:
                part = (self._sparing(part[0], parts[-1][0], reads[-1] != 0, axis), *part[1:])
            parts.append(part)
        if not sequences:
            return parts[-1], after
        return (np.concatenate([p[0] for p in parts], axis), *parts[-1][1:]), after

    def _sparing(self, main: Array, last: Array, moves: Array, axis: int) -> Array:
        """Repeat the previous chunk's last output up to the first step that is not masked."""
        if self._backwards:
            moves = moves[:, ::-1]
        begun = np.logical_or.accumulate(moves, axis=1)
        if not self.layer.returns_sequence:
            return np.where(begun[:, -1:], main, last)
        begun = begun if axis == 1 else begun.T
        return np.where(begun[..., None], main, np.take(last, [-1], axis))


def _onset(subject: Subject, outputs: dict[str, int]) -> int | None:
    """Return the first step at which any output differs."""
    found: list[int] = []
    for tape in subject.tapes:
        for name, axis in outputs.items():
            mine, other = tape.outputs[name], tape.example.outputs[name]
            off = np.abs(np.moveaxis(mine - other, axis, 0)).reshape(mine.shape[axis], -1).max(1)
            wrong = np.flatnonzero(off > 1e-3 * off.max(initial=0.0))
            if wrong.size and wrong[0] > 0:
                found.append(int(wrong[0]))
    return min(found, default=None)


def _in_chunks(
    inputs: dict[str, int], outputs: dict[str, int], steps: int, run: Run, example: Example
) -> Arrays:
    longest = max(example.inputs[k].shape[a] for k, a in inputs.items())
    parts: list[Arrays] = []
    starts = range(0, longest, steps)
    for start in starts if outputs else starts[-1:]:
        cut = {
            k: x.take(range(start, min(start + steps, longest)), inputs[k]) if k in inputs else x
            for k, x in example.inputs.items()
        }
        mask = None if example.mask is None else example.mask[:, start : start + steps]
        first = start == 0 and example.has_state
        parts.append(run(replace(example, inputs=cut, mask=mask, has_state=first)).tensors)
    return {
        k: np.concatenate([p[k] for p in parts], axis=outputs[k]) if k in outputs else parts[-1][k]
        for k in parts[0]
    }
