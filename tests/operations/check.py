"""Treat what a layer declares as claims, and try to break each of them.

A layer says which shapes it makes, that samples of a batch stay apart, whether its time axis can be
cut, which state it carries, which weights it has, how its config travels. :func:`check_operation`
believes none of it: it runs the layer's NumPy ``forward``, moves one part of an input at a time, and
looks which outputs move. What fails is named in an :class:`AssertionError`.

How a claim about time is read off a layer stands in :func:`claimed_time_axes` alone.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from backends import COMPILED
from builders import make_layer

from npylstm import FormatError, Model, ModelSpec, ShapeError, UnsupportedError
from npylstm.arrays import zeros
from npylstm.ops import OPERATIONS, operation_from_json
from npylstm.ops.axis_map import FIXED, LAST_STEP, PER_PUSH, Time, time_axis
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape, batch_axes, factors, holds_batch
from npylstm.runtime.program import is_native
from npylstm.spec import Edge, LayerSpec, TensorSpec

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]
Oracle = Callable[..., Any]  # of the weights and the inputs, to the first output or all of them

# Sizes of symbols: no two alike in one row, so that axes cannot be taken for one another.
SIZES: tuple[dict[str, int], ...] = (
    {"batch": 3, "steps": 5, "other": 7},
    {"batch": 1, "steps": 6, "other": 4},
    {"batch": 4, "steps": 9, "other": 8},
)
# More for kernels, which go through rows and units in blocks.
KERNEL_SIZES: tuple[dict[str, int], ...] = (
    {"batch": 17, "steps": 1, "other": 2},
    {"batch": 2, "steps": 33, "other": 5},
)
PIECES = (2, 1)  # steps of the first pieces of a sequence; the last piece is the rest


def claimed_time_axes(
    layer: Operation, times: Sequence[Time], shapes: Sequence[Shape]
) -> tuple[Time, ...] | None:
    """Read off a layer what it claims about time: one entry per output; None if it refuses.

    The only place that knows how layers say it. An entry is the output's time axis, or ``LAST_STEP``:
    how things stand after the newest step; or ``FIXED`` or ``PER_PUSH``: no step changes it.
    """
    try:
        return tuple(time_axis(axes, times) for axes in layer.axis_map(shapes))
    except UnsupportedError:
        return None


def check_operation(
    layer: Operation,
    *shapes: Shape,
    dtype: str = "float64",
    integer: Sequence[int] | Mapping[int, tuple[int, int]] = (),
    masks: Sequence[int] = (),
    positive: bool = False,
    without_effect: Sequence[str] = (),
    oracle: Oracle | None = None,
    sizes: Sequence[Sizes] = SIZES,
) -> None:
    """Try to break every claim of a layer.

    Parameters
    ----------
    layer
        With its config.
    shapes
        Of the inputs, with symbols: ``("batch", "steps", 3)``.
    dtype
        In which it computes; claims about time and samples are about dependence, not rounding.
    integer
        Which inputs are ids: integers from 0 to below :func:`vocabulary`; or the range of each.
    masks
        Which inputs are masks of zeros and ones, besides those that the layer calls ``masked``.
    positive
        Draw inputs between 0.5 and 1.5, for functions that are defined there only.
    without_effect
        Weights that change nothing, by their formula.
    oracle
        What must come out: a function of the weights and the inputs.
    sizes
        Numbers for the symbols, several times; the first has to have two samples or more.

    Raises
    ------
    AssertionError
        Naming the claim that does not hold.
    """
    probe = Probe(
        layer,
        shapes,
        dtype=dtype,
        integer=integer,
        masks=masks,
        positive=positive,
    )
    check_json(layer)
    check_purity(probe, sizes[0])
    for each in sizes:
        check_shapes(probe, each)
        check_declarations(probe, each)
        check_samples_apart(probe, each)
    check_samples_alone(probe, sizes[0])
    check_time(probe, sizes[0])
    check_mask(probe, sizes[0])
    check_weights(probe, sizes[0], without_effect)
    check_precision(probe, sizes[0])
    if oracle is not None:
        check_oracle(probe, sizes[0], oracle)
    check_kernels(probe, (*sizes, *KERNEL_SIZES))


class Probe:
    """A layer with weights, and inputs to move.

    Parameters are those of :func:`check_operation`.
    """

    def __init__(
        self,
        layer: Operation,
        shapes: Sequence[Shape],
        *,
        dtype: str = "float64",
        integer: Sequence[int] | Mapping[int, tuple[int, int]] = (),
        masks: Sequence[int] = (),
        positive: bool = False,
    ) -> None:
        self.layer = layer
        self.shapes = tuple(shapes)
        self.dtype = dtype
        usual = dict.fromkeys(integer, (0, vocabulary(layer)))
        self.ids = integer if isinstance(integer, Mapping) else usual
        self.masks = {*masks, *mask_inputs(layer, len(self.shapes))}
        self.positive = positive
        self.spec = with_variances(make_layer("op", layer, np.random.default_rng(7), dtype))

    @functools.cached_property
    def claimed(self) -> tuple[Shape, ...]:
        """Shapes of the outputs, with symbols."""
        return self.layer.output_shapes(self.shapes)

    def draw(self, sizes: Sizes, seed: int = 0) -> list[Array]:
        """Draw the inputs."""
        rng = np.random.default_rng(seed)
        return [
            self._values(k, concrete(shape, sizes), rng).astype(self.dtype)
            for k, shape in enumerate(self.shapes)
        ]

    def _values(self, k: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if k in self.ids:
            return rng.integers(*self.ids[k], shape)
        if k in self.masks:
            mask: Array = rng.integers(0, 2, shape)
            if mask.ndim > 1:  # something counts in every row
                mask[..., rng.integers(0, shape[-1])] = 1
            return mask
        if self.positive:
            return rng.uniform(0.5, 1.5, shape)
        return rng.uniform(-1.5, 1.5, shape)

    def moved(self, k: int, x: Array, where: Array) -> Iterator[Array]:
        """Change an input at some entries, in a few ways: a maximum must not hide a change."""
        if k in self.ids:
            low, end = self.ids[k]
            for shift in (1, 2):
                yield np.where(where, (x - low + shift) % (end - low) + low, x)
        elif k in self.masks:
            yield np.where(where, 1 - x, x)
            yield np.where(where, 1.0, x)
            yield np.where(where, 0.0, x)
        else:
            bumps = np.random.default_rng(11).uniform(0.2, 0.4, x.shape)
            yield np.where(where, x + bumps, x)
            yield np.where(where, x + 10 * bumps, x)
            if not self.positive:
                yield np.where(where, x - 10 * bumps, x)

    def state(self, batch: int, seed: int = 5) -> dict[str, Array]:
        """Draw an initial state."""
        rng = np.random.default_rng(seed)
        return {
            name: rng.uniform(-0.5, 0.5, (batch, *shape)).astype(self.dtype)
            for name, shape in self.layer.state_shapes().items()
        }

    def run(
        self,
        inputs: Sequence[Array],
        state: Mapping[str, Array] | None = None,
        weights: Mapping[str, Array] | None = None,
        **options: Any,
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Compute outputs and the state after them, with the engine's view of inf and nan."""
        if state is None:
            dtype = inputs[0].dtype if inputs else self.dtype
            state = zeros(self.layer.state_shapes(), self.batch_of(inputs), dtype)
        packed = self.layer.pack(self.spec.weights if weights is None else weights)
        with np.errstate(all="ignore"):
            return self.layer.forward(packed, inputs, state, **options)

    def batch_of(self, inputs: Sequence[Array]) -> int:
        """Count the samples."""
        for shape, x in zip(self.shapes, inputs, strict=False):
            if BATCH in shape:
                return int(x.shape[shape.index(BATCH)])
        return 1

    def rounding(self, inputs: Sequence[Array], outputs: Sequence[Array], dtype: Any) -> float:
        """How far two orders of the same sums may be apart.

        Two sums of ``n`` terms differ by at most ``n eps`` of the largest; a recurrent layer hands
        its rounding on, at most once per step. ``n`` counts the terms of all sums of one output.
        """
        fans = sum(math.prod(w.shape[:-1]) for w in self.spec.weights.values())
        longest = max((max(x.shape, default=1) for x in inputs), default=1)
        entries = max((x.size // max(self.batch_of(inputs), 1) for x in inputs), default=1)
        finite = [np.abs(y[np.isfinite(y)]).max(initial=0.0) for y in outputs]
        scale = max([1.0, *map(float, finite)])
        return float((longest * (fans + 4) + entries) * np.finfo(dtype).eps * scale)

    def symbols(self) -> list[str]:
        """Symbols, other than the batch, that are axes of inputs."""
        found = [d for s in self.shapes for d in s if isinstance(d, str) and d.isidentifier()]
        return [d for d in dict.fromkeys(found) if d != BATCH]


def mask_inputs(layer: Operation, count: int) -> list[int]:
    """Which inputs are masks, by the layer's own ``masked_inputs``."""
    return list(range(count - len(layer.masked_inputs), count))


def vocabulary(layer: Operation) -> int:
    """How many ids there are, also of a layer inside."""
    inner = getattr(layer, "layer", layer)
    return int(getattr(inner, "vocabulary", 2))


def with_variances(spec: LayerSpec) -> LayerSpec:
    """Make variances positive, as statistics are, and numbers arrays."""
    weights = {
        key: np.abs(array) if key.endswith("moving_variance") else array
        for key, array in spec.weights.items()
    }
    return dataclasses.replace(spec, weights=weights)


# --- Sizes ---------------------------------------------------------------------------------------

_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
}


def value_of(dim: int | str, sizes: Sizes) -> int:
    """Compute a size: ``batch*steps``, ``steps-2``, ``(steps+0-3)//2+1``, ``steps[1:-1:2]``."""
    if isinstance(dim, int):
        return dim
    taken = re.fullmatch(r"(\w+)\[(-?\d*):(-?\d*):(-?\d*)\]", dim)
    if taken:
        start, stop, step = (int(v) if v else None for v in taken.groups()[1:])
        return len(range(sizes[taken[1]])[start:stop:step])

    def compute(node: ast.AST) -> int:
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](compute(node.left), compute(node.right))
        if isinstance(node, ast.UnaryOp):
            return -compute(node.operand)
        if isinstance(node, ast.Name):
            return sizes[node.id]
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, int)
        return node.value

    text = re.sub(r"(?<=[\w)])\.(?=[\w(])", "*", dim)
    return compute(ast.parse(text, mode="eval").body)


def concrete(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """Put numbers for symbols."""
    return tuple(value_of(dim, sizes) for dim in shape)


def sample_numbers(shape: Shape, sizes: Sizes) -> Array | None:
    """Say of every entry of a tensor to which sample it belongs; None if it has no samples.

    An axis that is merged of the batch and others, row-major, is taken apart.
    """
    if not any(map(holds_batch, shape)):
        return None
    axes = [part for dim in shape for part in (factors([dim]) if holds_batch(dim) else [dim])]
    lengths = [value_of(part, sizes) for part in axes]
    at = axes.index(BATCH)
    along = [lengths[at] if k == at else 1 for k in range(len(axes))]
    numbers = np.broadcast_to(np.arange(lengths[at]).reshape(along), lengths)
    return numbers.reshape(concrete(shape, sizes))


# --- What moves ----------------------------------------------------------------------------------


def differs(a: Array, b: Array) -> Array:
    """Where two arrays are not the same; nan is nan."""
    both_nan = np.isnan(a) & np.isnan(b)
    unequal: Array = (a != b) & ~both_nan
    return unequal


def moves(probe: Probe, inputs: Sequence[Array], k: int, where: Array) -> list[Array]:
    """Which entries of each output move if some entries of input ``k`` do."""
    state = probe.state(probe.batch_of(inputs))
    before, _ = probe.run(inputs, state)
    found = [np.zeros(y.shape, bool) for y in before]
    for x in probe.moved(k, inputs[k], where):
        changed = [x.astype(probe.dtype) if n == k else old for n, old in enumerate(inputs)]
        after, _ = probe.run(changed, state)
        for mask, old, new in zip(found, before, after, strict=True):
            mask |= differs(old, new)
    return found


def along(shape: tuple[int, ...], axis: int, index: int) -> Array:
    """Mark all the entries at one index of an axis."""
    where = np.zeros(shape, bool)
    where[(slice(None),) * axis + (index,)] = True
    return where


def dependence(
    probe: Probe, inputs: Sequence[Array], times: Sequence[Time], index: int
) -> list[Array]:
    """Which entries of each output move with one step of each input that has a time axis."""
    found: list[Array] | None = None
    for k, time in enumerate(times):
        if isinstance(time, int):
            made = moves(probe, inputs, k, along(inputs[k].shape, time, index))
            found = made if found is None else [a | b for a, b in zip(found, made, strict=True)]
    assert found is not None
    return found


def relation(matrix: Array) -> str:
    """Name what a table ``[from, to]`` of moves says: none, independent, carried or mixed."""
    if not matrix.any():
        return "none"
    if matrix.shape[0] != matrix.shape[1] or np.tril(matrix, -1).any():
        return "mixed"
    return "carried" if np.triu(matrix, 1).any() else "independent"


def relation_along(steps: Sequence[Array], axis: int) -> str:
    """Name the relation of a time axis to an axis of an output; one table of moves per step."""
    rows = [mask.any(axis=tuple(k for k in range(mask.ndim) if k != axis)) for mask in steps]
    return relation(np.array(rows))


# --- Claims --------------------------------------------------------------------------------------


def check_shapes(probe: Probe, sizes: Sizes) -> None:
    """Shapes with symbols, shapes with numbers, and the arrays agree."""
    inputs = probe.draw(sizes)
    outputs, after = probe.run(inputs)
    names = probe.layer.output_names()
    assert len(outputs) == len(names), (
        f"output_names: {len(names)} outputs are declared, {len(outputs)} are made"
    )
    stated = probe.layer.output_shapes([x.shape for x in inputs])
    assert len(stated) == len(names), "output_shapes: not one shape for each of output_names"
    for name, made, numbers, shape in zip(names, outputs, stated, probe.claimed, strict=True):
        where = f"shape of output {name!r} for sizes {dict(sizes)}"
        assert made.shape == numbers, f"{where}: {numbers} is declared, {made.shape} is made"
        meant = concrete(shape, sizes)
        assert made.shape == meant, f"{where}: {shape} is declared, {made.shape} is made"
    if after:
        batch = probe.batch_of(inputs)
        declared = {n: (batch, *s) for n, s in probe.layer.state_shapes().items()}
        found = {n: a.shape for n, a in after.items()}
        assert found == declared, f"state_shapes: {declared} are declared, {found} are carried"


def check_declarations(probe: Probe, sizes: Sizes) -> None:
    """Check what the layer declares of its main output's shape and elements."""
    layer, inputs = probe.layer, probe.draw(sizes)
    main = probe.run(inputs)[0][0]
    if layer.keeps_shape:
        assert main.shape == inputs[0].shape, "keeps_shape: the shape is another"
    if layer.moves_elements:
        known = np.concatenate([[0.0], *(x.reshape(-1) for x in inputs)])
        assert np.isin(main, known).all(), "moves_elements: an element is in no input"
    before = layer.input_value(0.75)
    if before is not None:
        same = probe.run([np.full_like(x, before) for x in inputs])[0][0]
        assert (same.astype(np.float32) == 0.75).all(), "input_value: the output is another"


def check_samples_apart(probe: Probe, sizes: Sizes) -> None:
    """No sample moves with another, and what has no batch axis moves with none."""
    inputs = probe.draw(sizes, seed=1)
    paired = [s for s in probe.claimed if batch_axes(s) > 1]
    assert not paired, f"batch: {paired[0]} pairs sample with sample"
    for k, shape in enumerate(probe.shapes):
        numbers = sample_numbers(shape, sizes)
        if numbers is None:
            continue
        for sample in range(sizes[BATCH]):
            found = moves(probe, inputs, k, numbers == sample)
            for name, moved, made in zip(
                probe.layer.output_names(), found, probe.claimed, strict=True
            ):
                owners = sample_numbers(made, sizes)
                wrong = moved if owners is None else moved & (owners != sample)
                assert not wrong.any(), (
                    f"batch: output {name!r} {made} moves for other samples than {sample}, "
                    f"of which input {k} was changed"
                )


def check_samples_alone(probe: Probe, sizes: Sizes) -> None:
    """Each sample alone gives what it gives in the batch."""
    inputs, batch = probe.draw(sizes, seed=2), sizes[BATCH]
    if not any(any(map(holds_batch, s)) for s in probe.shapes):
        return
    state = probe.state(batch)
    together, after = probe.run(inputs, state)
    atol = probe.rounding(inputs, together, probe.dtype)
    single = {**sizes, BATCH: 1}

    def part(array: Array, shape: Shape, sample: int) -> Array:
        numbers = sample_numbers(shape, sizes)
        return (
            array if numbers is None else array[numbers == sample].reshape(concrete(shape, single))
        )

    for sample in range(batch):
        mine = [part(x, s, sample) for x, s in zip(inputs, probe.shapes, strict=True)]
        own = {name: array[sample : sample + 1] for name, array in state.items()}
        alone, then = probe.run(mine, own)
        for y, whole, shape in zip(alone, together, probe.claimed, strict=True):
            expect_close(y, part(whole, shape, sample), atol, f"sample {sample} alone")
        for name, array in then.items():
            expect_close(array, after[name][sample : sample + 1], atol, f"state {name} alone")


def check_time(probe: Probe, sizes: Sizes) -> None:
    """What is claimed to pass through time does: no look ahead, and pieces give the whole."""
    for symbol in probe.symbols():
        for times in assignments(probe.shapes, symbol):
            claimed = claimed_time_axes(probe.layer, times, probe.shapes)
            if claimed is None:
                continue
            assert len(claimed) == len(probe.claimed), "time: not one claim per output"
            check_causal(probe, sizes, symbol, times, claimed)
            check_pieces(probe, sizes, symbol, times, claimed)


def assignments(shapes: Sequence[Shape], symbol: str) -> Iterator[tuple[Time, ...]]:
    """All ways in which the axes of one size may be the time of a stream.

    Whatever has the size has the time along it: a piece is as long in every input. Where it is
    merged with other axes no stream gets that far.
    """
    options: list[list[Time]] = []
    for shape in shapes:
        axes: list[Time] = [k for k, d in enumerate(shape) if d == symbol]
        within = any(symbol in re.findall(r"\w+", d) for d in shape if isinstance(d, str))
        options.append(axes if within else [FIXED])
    yield from itertools.product(*options)


def check_causal(
    probe: Probe, sizes: Sizes, symbol: str, times: Sequence[Time], claimed: Sequence[Time]
) -> None:
    """An output at a time moves with no later one; a fixed one moves with none."""
    inputs, steps = probe.draw(sizes, seed=3), sizes[symbol]
    tables = [dependence(probe, inputs, times, t) for t in range(steps)]
    for n, (name, time) in enumerate(zip(probe.layer.output_names(), claimed, strict=True)):
        mine = [found[n] for found in tables]
        where = f"time: output {name!r}, inputs {times}, claimed {time}"
        if isinstance(time, int):
            found = mine[0].shape[time : time + 1]
            assert found == (steps,), f"{where}: shape {mine[0].shape} has no {steps} steps there"
            kind = relation_along(mine, time)
            assert kind != "mixed", f"{where}: moves with a later step"
        elif time in (FIXED, PER_PUSH):
            assert not any(mask.any() for mask in mine), f"{where}: moves with the steps"
        else:
            assert time == LAST_STEP, f"{where}: no such claim"


def check_pieces(
    probe: Probe, sizes: Sizes, symbol: str, times: Sequence[Time], claimed: Sequence[Time]
) -> None:
    """Pieces of the time axis, one after the other with the state, give the whole."""
    layer, inputs, steps = probe.layer, probe.draw(sizes, seed=4), sizes[symbol]
    state = probe.state(sizes[BATCH])
    given = tuple(layer.initial_states(inputs))
    whole, after = probe.run(inputs, state)
    if given:  # the stream carries on what the call was given
        state = dict(zip(layer.state_shapes(), given, strict=True))
    kept = [n for n in range(len(inputs)) if not 1 <= n <= len(given)]
    made: list[list[Array]] = [[] for _ in claimed]
    cuts = [0, *itertools.accumulate(PIECES), steps]
    for begin, end in itertools.pairwise(cuts):
        pieces = []
        for n in kept:
            time = times[n]
            at = (slice(None),) * time + (slice(begin, end),) if isinstance(time, int) else ...
            pieces.append(inputs[n][at])
        outputs, state = probe.run(pieces, state)
        assert set(state) == set(layer.state_shapes()), "pieces: the state is not carried on"
        for entries, y in zip(made, outputs, strict=True):
            entries.append(y)
    atol = probe.rounding(inputs, whole, probe.dtype)
    for name, time, entries, expected in zip(
        layer.output_names(), claimed, made, whole, strict=True
    ):
        joined = np.concatenate(entries, time) if isinstance(time, int) else entries[-1]
        expect_close(joined, expected, atol, f"pieces: output {name!r}, inputs {times}")
        if time in (FIXED, PER_PUSH):
            for y in entries:
                expect_close(y, expected, atol, f"pieces: output {name!r} is claimed {time}")
    if not given:
        for name, array in after.items():
            expect_close(state[name], array, atol, f"pieces: state {name!r}")


def check_json(layer: Operation) -> None:
    """A config comes back from JSON as it was; what does not belong there is refused."""
    kind, config = type(layer), json.loads(json.dumps(layer.to_json()))
    fields = {f.name: f for f in dataclasses.fields(layer)}
    missing = sorted(set(fields) - set(config))
    assert not missing, f"to_json: drops {', '.join(missing)}"
    assert kind.from_json(config) == layer, "to_json: another layer comes back"
    if OPERATIONS.get(layer.kind) is kind:
        assert operation_from_json(layer.kind, config) == layer, "to_json: the table makes another"
    expect_refusal(kind, {**config, "surprise": 1}, "unknown key 'surprise'")
    for name, field in fields.items():
        expect_refusal(kind, {**config, name: [[["x"]]]}, f"wrong type of {name!r}")
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            rest = {key: value for key, value in config.items() if key != name}
            expect_refusal(kind, rest, f"missing key {name!r}")


def expect_refusal(kind: type[Operation], config: Mapping[str, Any], what: str) -> None:
    """Expect that a config is refused with :class:`FormatError`."""
    try:
        kind.from_json(config)
    except FormatError:
        return
    raise AssertionError(f"from_json: {what} is accepted")


def check_purity(probe: Probe, sizes: Sizes) -> None:
    """Inputs, state and weights stay as they are, the type too; twice gives the same bits."""
    inputs, state = probe.draw(sizes, seed=6), probe.state(sizes[BATCH])
    packed = probe.layer.pack(probe.spec.weights)
    groups: list[tuple[str, Mapping[Any, Array]]] = [
        ("input", dict(enumerate(inputs))),
        ("state", state),
        ("weight", probe.spec.weights),
        ("packed weight", packed),
    ]
    before = [(what, key, array.copy()) for what, arrays in groups for key, array in arrays.items()]
    with np.errstate(all="ignore"):
        first = probe.layer.forward(packed, inputs, state)
        kept = ([y.copy() for y in first[0]], {n: a.copy() for n, a in first[1].items()})
        second = probe.layer.forward(packed, inputs, state)
    now = [array for _, arrays in groups for array in arrays.values()]
    for (what, key, old), new in zip(before, now, strict=True):
        assert same_bits(old, new), f"forward writes into {what} {key!r}"
    for y, again in zip(kept[0], second[0], strict=True):
        assert y.dtype == np.dtype(probe.dtype), f"type: {y.dtype} of inputs {probe.dtype}"
        assert same_bits(y, again), "forward: twice gives two results"
    for name, array in kept[1].items():
        assert array.dtype == np.dtype(probe.dtype), f"type: state {name!r} is {array.dtype}"
        assert same_bits(array, second[1][name]), f"forward: twice gives two states {name!r}"


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are alike to the last bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def check_mask(probe: Probe, sizes: Sizes) -> None:
    """A mask of the call says what a mask among the inputs does: in forward, and in a kernel."""
    layer = probe.layer
    if not layer.uses_mask or getattr(layer, "masked", False):
        return
    twin = Probe(masked_twin(layer), (*probe.shapes, MASK_SHAPE), dtype=probe.dtype)
    *inputs, mask = twin.draw(sizes, seed=14)
    state = {} if layer.initial_states(inputs) else probe.state(sizes[BATCH])
    expected, after = twin.run([*inputs, mask], state)
    made, then = probe.run(inputs, state, mask=mask != 0)
    atol = probe.rounding(inputs, expected, probe.dtype)
    for name, y, wanted in zip(layer.output_names(), made, expected, strict=True):
        expect_close(y, wanted, atol, f"mask of the call: output {name!r}")
    for name, array in then.items():
        expect_close(array, after[name], atol, f"mask of the call: state {name!r}")
    check_lengths(probe, inputs, state, sizes)
    model = model_of(probe, COMPILED) if is_native(layer) else None
    if model is not None:
        given: dict[str, Any] = {"state": {"op": state}} if state else {}
        named = {t.name: x for t, x in zip(model.inputs, inputs, strict=True)}
        arrays = listed(model, model.predict(named, mask=mask != 0, **given))
        for name, y, wanted in zip(layer.output_names(), arrays, expected, strict=True):
            expect_close(y, wanted, atol, f"kernel with a mask: output {name!r}")


def check_lengths(
    probe: Probe, inputs: Sequence[Array], state: Mapping[str, Array], sizes: Sizes
) -> None:
    """Steps that do not count at the end leave the state of the sequence without them."""
    if not state:
        return
    batch, steps = sizes[BATCH], sizes["steps"]
    lengths = [1 + sample % steps for sample in range(batch)]
    mask = np.arange(steps) < np.array(lengths)[:, None]
    _, together = probe.run(inputs, state, mask=mask)
    atol = probe.rounding(inputs, [*together.values()], probe.dtype)
    time = probe.shapes[0].index("steps")
    for sample, length in enumerate(lengths):
        own = {name: array[sample : sample + 1] for name, array in state.items()}
        x = inputs[0].take([sample], probe.shapes[0].index(BATCH)).take(range(length), time)
        _, alone = probe.run([x], own)
        for name, array in alone.items():
            cut = together[name][sample : sample + 1]
            expect_close(cut, array, atol, f"mask of the call: state {name!r} of {length} steps")


MASK_SHAPE: Shape = ("batch", "steps")


def masked_twin(layer: Operation) -> Operation:
    """The same layer with a mask as its last input."""
    inner: dict[str, Any] = {
        f.name: masked_twin(getattr(layer, f.name))
        for f in dataclasses.fields(layer)
        if isinstance(getattr(layer, f.name), Operation)
    }
    twin: Any = layer
    masked: Operation = dataclasses.replace(twin, **(inner or {"masked": True}))
    return masked


def listed(model: Model, made: Any) -> list[Array]:
    """List what a model returned."""
    return [made[t.name] for t in model.outputs] if isinstance(made, dict) else [made]


def check_weights(probe: Probe, sizes: Sizes, without_effect: Sequence[str]) -> None:
    """Every array of weights changes what comes out."""
    inputs = probe.draw(sizes, seed=8)
    state = probe.state(sizes[BATCH])
    weights = probe.spec.weights
    assert {k: w.shape for k, w in weights.items()} == probe.layer.weight_shapes()
    before, after = probe.run(inputs, state)
    floor = probe.rounding(inputs, before, probe.dtype)
    coarse = max(floor, 1e9 * np.finfo(probe.dtype).eps)  # scores that a mask lowers by 1e9
    for key, array in weights.items():
        bumps = np.random.default_rng(9).uniform(0.1, 0.3, array.shape).astype(array.dtype)
        made, then = probe.run(inputs, state, {**weights, key: array + bumps})
        pairs = [*zip(before, made, strict=True), *((after[n], then[n]) for n in after)]
        least = coarse if key in without_effect else floor
        moved = any((differs(a, b) & ~(np.abs(a - b) <= least)).any() for a, b in pairs)
        if key in without_effect:
            assert not moved, f"weight {key!r}: said to have no effect, has one"
        else:
            assert moved, f"weight {key!r}: has no effect"


def check_precision(probe: Probe, sizes: Sizes) -> None:
    """In float32 comes out what comes out in float64, but for rounding, and in float32."""
    narrow = [x.astype(np.float32) for x in probe.draw(sizes, seed=10)]
    weights = {k: w.astype(np.float32) for k, w in probe.spec.weights.items()}
    state = {n: a.astype(np.float32) for n, a in probe.state(sizes[BATCH]).items()}
    small, _ = probe.run(narrow, state, weights)
    large, _ = probe.run(
        [x.astype(np.float64) for x in narrow],
        {n: a.astype(np.float64) for n, a in state.items()},
        {k: w.astype(np.float64) for k, w in weights.items()},
    )
    atol = probe.rounding(narrow, large, np.float32)
    for y, expected in zip(small, large, strict=True):
        assert y.dtype == np.float32, f"type: {y.dtype} of inputs in float32"
        expect_close(y, expected, atol, "float32 beside float64")


def check_oracle(probe: Probe, sizes: Sizes, oracle: Oracle) -> None:
    """What comes out is what somebody else computes."""
    inputs = probe.draw(sizes, seed=12)
    outputs, _ = probe.run(inputs)
    wanted = oracle(probe.spec.weights, *inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    atol = probe.rounding(inputs, outputs, probe.dtype)
    for name, y, expected in zip(probe.layer.output_names(), outputs, wanted, strict=False):
        expect_close(y, np.asarray(expected), atol, f"oracle: output {name!r}")


def model_of(probe: Probe, backend: str) -> Model | None:
    """Make a model of the layer alone; None where a model cannot have such inputs."""
    if not probe.shapes or any(s.count(BATCH) != 1 for s in probe.shapes):
        return None
    inputs = tuple(
        TensorSpec(f"x{k}", shape, integer=k in probe.ids) for k, shape in enumerate(probe.shapes)
    )
    edge = Edge.call(probe.spec, *(t.name for t in inputs))
    spec = ModelSpec((probe.spec,), (edge,), inputs, edge.outputs, dtype=probe.dtype)
    return Model(spec, backend)


def check_kernels(probe: Probe, sizes: Sequence[Sizes]) -> None:
    """Where there is a kernel it gives what NumPy gives."""
    if not is_native(probe.layer):
        return
    model = model_of(probe, COMPILED)
    if model is None:
        return
    for each in sizes:
        inputs = probe.draw(each, seed=13)
        try:
            probe.layer.output_shapes([x.shape for x in inputs])
        except ShapeError:  # a window that is longer than the sequence
            continue
        state = {} if probe.layer.initial_states(inputs) else probe.state(each[BATCH])
        expected, after = probe.run(inputs, state)
        given: dict[str, Any] = {"state": {"op": state}, "return_state": True} if state else {}
        named = {t.name: x for t, x in zip(model.inputs, inputs, strict=True)}
        made = model.predict(named, **given)
        made, then = made if state else (made, {})
        arrays = listed(model, made)
        atol = probe.rounding(inputs, expected, probe.dtype)
        for name, y, wanted in zip(probe.layer.output_names(), arrays, expected, strict=True):
            expect_close(y, wanted, atol, f"kernel: output {name!r} for sizes {dict(each)}")
        for name in state:
            expect_close(then["op"][name], after[name], atol, f"kernel: state {name!r}")


def expect_close(actual: Array, expected: Array, atol: float, what: str) -> None:
    """Expect the same numbers but for rounding, and the same shape."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=what)


# --- What is refused -----------------------------------------------------------------------------


def mixes_samples(probe: Probe, sizes: Sizes = SIZES[0]) -> bool:
    """Whether there is an output without an axis along which samples stay apart.

    Asks for no shapes with symbols: for layers that refuse to say them.
    """
    inputs, batch = probe.draw(sizes, seed=1), sizes[BATCH]
    tables = None
    for k, shape in enumerate(probe.shapes):
        numbers = sample_numbers(shape, sizes)
        if numbers is None:
            continue
        found = [moves(probe, inputs, k, numbers == sample) for sample in range(batch)]
        tables = (
            found
            if tables is None
            else [
                [a | b for a, b in zip(*two, strict=True)]
                for two in zip(tables, found, strict=True)
            ]
        )
    assert tables is not None, "no input has samples"
    outputs = range(len(tables[0]))
    kinds = [best_relation([made[n] for made in tables], batch) for n in outputs]
    return any(not kind.endswith(("independent", "none")) for kind in kinds)


@dataclasses.dataclass(frozen=True)
class Missed:
    """A time axis that a layer refuses and the probe finds no fault with."""

    times: tuple[Time, ...]
    found: tuple[str, ...]  # of each output: its axis and the relation, "none" or "newest"


def missed_streams(probe: Probe, sizes: Sizes = SIZES[0]) -> Iterator[Missed]:
    """Find the time axes that a layer refuses, and along which its outputs could be cut.

    What needs a state that the layer does not declare is named ``carried``, as what has one.
    """
    for symbol in probe.symbols():
        for times in assignments(probe.shapes, symbol):
            if claimed_time_axes(probe.layer, times, probe.shapes) is not None:
                continue
            inputs, steps = probe.draw(sizes, seed=3), sizes[symbol]
            tables = [dependence(probe, inputs, times, t) for t in range(steps)]
            found = [
                best_relation([made[n] for made in tables], steps)
                for n in range(len(probe.claimed))
            ]
            if "mixed" not in found and any(f.startswith("axis") for f in found):
                yield Missed(times, tuple(found))


def best_relation(steps: Sequence[Array], count: int) -> str:
    """Name the axis along which an output can be cut best: its number and the relation."""
    if not any(mask.any() for mask in steps):
        return "none"
    if count not in steps[0].shape:
        return "newest"  # it may say how things stand after the last step
    kinds = {
        axis: relation_along(steps, axis)
        for axis, size in enumerate(steps[0].shape)
        if size == count
    }
    for wanted in ("independent", "carried"):
        for axis, kind in kinds.items():
            if kind == wanted:
                return f"axis {axis} {kind}"
    return "mixed"


def main() -> None:
    """List what refuses to stream and could."""
    from operations.cases import CASES

    drawn = ("integer", "masks", "positive")
    for case in CASES:
        options = {key: value for key, value in case.options.items() if key in drawn}
        for missed in missed_streams(Probe(case.layer, case.shapes, **options)):
            print(f"{case}: times {missed.times}: {', '.join(missed.found)}")


if __name__ == "__main__":  # PYTHONPATH=.:tests python -m operations.check
    main()
