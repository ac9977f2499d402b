"""Claims of a layer about numbers: masks, weights, precision, and kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from backends import COMPILED
from operations.movement import differs
from operations.probe import Probe, expect_close
from operations.sizes import Array, Sizes

from npylstm import Model, ModelSpec, ShapeError
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape
from npylstm.runtime.program import is_native
from npylstm.spec import Edge, LayerSpec, TensorSpec

Oracle = Callable[..., Any]  # of the weights and the inputs, to the first output or all of them


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
    model = model_of(probe, COMPILED) if is_native(LayerSpec("op", layer), probe.dtype) else None
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
    if not is_native(LayerSpec("op", probe.layer), probe.dtype):
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
