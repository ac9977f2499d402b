"""Claims of a layer about shapes, samples, its config, and what it leaves as it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from operations.movement import moves
from operations.probe import Probe, expect_close
from operations.sizes import Array, Sizes, concrete, sample_numbers

from npylstm import FormatError
from npylstm.ops import OPERATIONS, operation_from_json
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape, batch_axes, holds_batch


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
    shapes = [x.shape for x in inputs]
    for count in (layer.multiplications(shapes), layer.sequential_steps(shapes)):
        assert type(count) is int, f"multiplications, sequential_steps: {count!r} is no count"
        assert count >= 0, f"multiplications, sequential_steps: {count} is no count"
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
