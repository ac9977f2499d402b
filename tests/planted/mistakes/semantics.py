"""Mistakes of those who write the forward pass: formulas, directions, masks, states."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from planted.functions import ACTIVATIONS
from planted.mistakes.base import Planting, in_cells, in_layers
from planted.mistakes.data import sequence_outputs
from planted.program import Layer, Outputs, Run

_CELL = ("tanh", "sigmoid", "relu", "softsign", "linear", "hard_tanh")
_GATE = ("sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth", "tanh")
# What people take for the activation of a layer that is not recurrent.
_OTHERS: dict[str, tuple[Any, ...]] = {
    "linear": ("relu", "tanh"),
    "relu": ("linear", "elu", {"name": "relu", "negative_slope": 0.01}, {"name": "relu", "negative_slope": 0.3}),
    "tanh": ("linear", "sigmoid", "relu"),
    "sigmoid": ("hard_sigmoid_fifth", "hard_sigmoid_sixth", "tanh"),
    "gelu": ("gelu_tanh", "relu", "linear", "silu"),
    "elu": ("linear", "relu", "selu", {"name": "elu", "alpha": 0.5}),
    "softmax": ("sigmoid", "log_softmax"),
}  # fmt: skip


def _config(key: str, value: Any, layer: Layer) -> Layer | None:
    if key not in layer.config or layer.config[key] == value:
        return None
    return layer.config_with(**{key: value})


def _word(activation: Any) -> str:
    if isinstance(activation, str):
        return activation
    return " ".join(map(str, activation.values()))


def activation(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name in _CELL:
        for where, layers, made, listed in in_cells(
            run, functools.partial(_config, "activation", name)
        ):
            yield Planting("activation", f"{name} {where}", made, layers, listed=listed)
    for before, others in _OTHERS.items():
        for after in others:

            def change(layer: Layer, before: str = before, after: Any = after) -> Layer | None:
                same = layer.config["activation"] == before
                return layer.config_with(activation=after) if same else None

            for where, layers, made, listed in in_layers(run, ("dense", "conv1d"), change):
                text = f"{before} taken for {_word(after)} {where}"
                also = ("logits",) if after == "log_softmax" else ()
                yield Planting("activation", text, made, layers, listed=listed, also=also)
    for slip, what in (("candidate", "candidate"), ("squash", "output of the cell")):
        for name in ("tanh", "relu", "linear"):

            def change_half(cell: Layer, slip: str = slip, name: str = name) -> Layer | None:
                wrong = cell.kind == "lstm" and cell.config["activation"] != name
                return cell.slips_with(**{slip: name}) if wrong else None

            for where, layers, made, _ in in_cells(run, change_half):
                text = f"{name} of the {what} only {where}"
                yield Planting("activation", text, made, layers, provable=False, listed=False)


def recurrent_activation(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name in _GATE:
        for where, layers, made, listed in in_cells(
            run, functools.partial(_config, "recurrent_activation", name)
        ):
            yield Planting("recurrent_activation", f"{name} {where}", made, layers, listed=listed)


def logits(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name in run.program.heads():
        layer = run.program.layers[name]
        now = layer.config.get("activation")
        if layer.kind != "dense":
            continue
        if now in ("softmax", "sigmoid"):
            made = run.layer(name, layer.config_with(activation="linear"))
            yield Planting("logits", f"{now} left out of {name}", made, (name, None), also=("activation",))  # fmt: skip
            yield Planting("logits", f"{now} twice in {name}", _again(run, name, now), (name, None), also=("activation",))  # fmt: skip
        elif now == "linear":
            for after in ("softmax", "sigmoid"):
                made = run.layer(name, layer.config_with(activation=after))
                yield Planting("logits", f"{after} applied in {name}", made, (name, None), also=("activation",))  # fmt: skip


def _again(run: Run, layer: str, function: str) -> Run:
    tensor = next(c.outputs[0] for c in run.program.calls if c.layer == layer)
    return run.then(lambda y: {**y, tensor: ACTIVATIONS[function](y[tensor])})


def reset_after(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    def other(cell: Layer) -> Layer | None:
        if cell.kind != "gru":
            return None
        return cell.config_with(reset_after=not cell.config["reset_after"])

    def outside(cell: Layer) -> Layer | None:
        return cell.slips_with(bias_outside=True) if "rb_h" in cell.weights else None

    for where, layers, made, listed in in_cells(run, other):
        yield Planting("reset_after", f"the other {where}", made, layers, listed=listed)
    for where, layers, made, listed in in_cells(run, outside):
        yield Planting(
            "reset_after", f"recurrent bias outside {where}", made, layers, listed=listed
        )


def update_gate_inverted(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    def change(cell: Layer) -> Layer | None:
        return cell.slips_with(update_inverted=True) if cell.kind == "gru" else None

    for where, layers, made, listed in in_cells(run, change):
        yield Planting("update_gate_inverted", where, made, layers, listed=listed)


def direction(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name, layer in run.program.layers.items():
        if layer.parts:
            back = layer.parts["backward"].config_with(go_backwards=False)
            made = run.layer(name, layer.parts_with("backward", back))
            yield Planting("direction", f"{name} forwards twice", made, (name, f"{name}/backward"))
            continue
        if not layer.recurrent:
            continue
        turned = layer.config_with(go_backwards=not layer.config["go_backwards"])
        yield Planting("direction", f"other way in {name}", run.layer(name, turned), (name, None))
        if layer.config["return_sequences"]:
            made = run.layer(name, turned.slips_with(turned=True))
            yield Planting("direction", f"other way in {name}, outputs turned", made, (name, None), listed=False)  # fmt: skip
    if not any(x.ndim < 3 for x in run.data.inputs.values()) and run.data.lengths is None:
        made = run.inputs(inputs={k: x[:, ::-1] for k, x in run.data.inputs.items()})
        yield Planting("direction", "inputs reversed", made, listed=False)


def sequence_order(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name, layer in run.program.layers.items():
        if not layer.recurrent or not next(iter(layer.cells.values())).config["return_sequences"]:
            continue
        if layer.parts:
            made = run.layer(name, layer.slips_with(not_turned=True))
            yield Planting("sequence_order", f"backward output of {name} not turned", made, (name, f"{name}/backward"))  # fmt: skip
        elif layer.config["go_backwards"]:
            made = run.layer(name, layer.slips_with(turned=True))
            yield Planting("sequence_order", f"output of {name} turned", made, (name,))
    for name in run.program.outputs if sequence_outputs(run) else ():
        made = run.then(functools.partial(_flip, name))
        yield Planting("sequence_order", f"output {name} reversed", made, listed=False)


def _flip(name: str, y: Outputs) -> Outputs:
    return {**y, name: y[name][:, ::-1]}


def merge_mode(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name, layer in run.program.layers.items():
        mode = layer.config.get("merge_mode")
        for other in ("sum", "mul", "ave"):
            if mode in ("sum", "mul", "ave") and other != mode:
                made = run.layer(name, layer.config_with(merge_mode=other))
                yield Planting("merge_mode", f"{mode} taken for {other} in {name}", made, (name,))
        if mode == "concat":
            made = run.layer(name, layer.slips_with(interleaved=True))
            yield Planting("merge_mode", f"interleaved in {name}", made, (name,), listed=False)


def last_step(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for name, layer in run.program.layers.items():
        if layer.kind == "select":
            for index in (-2, 0):
                made = run.layer(name, layer.config_with(index=index))
                yield Planting("last_step", f"step {index} of {name}", made, (name, None))
        if not layer.recurrent or next(iter(layer.cells.values())).config["return_sequences"]:
            continue
        for step in (-2, 0):
            made = run
            for way, cell in layer.cells.items():
                made = made.layer(name, made.program.layers[name].with_cell(way, cell.slips_with(step=step)))  # fmt: skip
            yield Planting("last_step", f"step {step} of {name}", made, (name, None))
        if layer.parts:  # out[:, -1] of PyTorch: the backward direction has read one step there
            back = layer.parts["backward"].slips_with(step=0)
            made = run.layer(name, layer.parts_with("backward", back))
            also = ("sequence_order",)
            yield Planting("last_step", f"newest step of both directions of {name}", made, (name, f"{name}/backward", None), also=also)  # fmt: skip


def _every_cell(run: Run, own: bool = False, **slips: Any) -> Run:
    """Set switches of every cell; with ``own`` only of those to which the graph gives no state."""
    made = run
    fed = {c.layer for c in run.program.calls if len(c.inputs) > 2}
    for name, way, cell in run.program.cells():
        if own and name in fed and not cell.config["masked"]:
            continue
        layer = made.program.layers[name]
        made = made.layer(name, layer.with_cell(way, layer.cells[way].slips_with(**slips)))
    return made


def _configured(run: Run, **config: Any) -> Run:
    made = run
    for name, way, _ in run.program.cells():
        layer = made.program.layers[name]
        made = made.layer(name, layer.with_cell(way, layer.cells[way].config_with(**config)))
    return made


def mask(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    masked = [name for name, v in run.program.layers.items() if v.kind == "masking"]
    embedded = [n for n, v in run.program.layers.items() if v.config.get("mask_zero")]
    cells = [*run.program.cells()]
    for name in (*masked, *embedded):
        layer = run.program.layers[name]
        made = run.layer(name, layer.slips_with(absent=True))
        users: tuple[str | None, ...] = (name, None, *(n for n, _, _ in cells))
        yield Planting("mask", f"ignored: {name} left out", made, users)
        for value in (-1.0, 0.0, -99.0) if name in masked else ():
            if value != layer.config["mask_value"]:
                made = run.layer(name, layer.config_with(mask_value=value))
                yield Planting("mask", f"value {value:g} in {name}", made, users)
        if name in masked:
            made = run.layer(name, layer.slips_with(inverted=True))
            yield Planting("mask", f"inverted in {name}", made, users, listed=False)
    if masked or embedded:
        yield Planting("mask", "ignored by every recurrent layer", _every_cell(run, ignore_mask=True))  # fmt: skip
    if masked or embedded or run.data.lengths is not None:
        rule = not cells[0][2].config["zero_output_for_mask"]
        text = "repeats taken for zeros" if rule else "zeros taken for repeats"
        yield Planting("mask", text, _configured(run, zero_output_for_mask=rule))
        ignore = functools.partial(lambda cell: cell.slips_with(ignore_mask=True))
        for where, layers, made, _ in in_cells(run, ignore):
            yield Planting("mask", f"ignored {where}", made, (*layers, None), listed=False)
    if run.data.lengths is not None:
        yield Planting("mask", "lengths ignored", run.inputs(lengths=None))
        shorter = np.maximum(run.data.lengths - 1, 1)
        yield Planting("mask", "lengths one short", run.inputs(lengths=shorter), listed=False)
    for where, layers, made, _ in in_layers(run, ("masked_mean",), lambda v: v.slips_with(ignore_mask=True)):  # fmt: skip
        yield Planting("mask", f"ignored {where}", made, (*layers, None), listed=False)


def padding(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    def change(before: int, layer: Layer) -> Layer | None:
        total = layer.config["size"] - 1
        same = layer.config["same"] and total // 2 == before
        if same or (not layer.config["same"] and layer.config["padding"][0] == before):
            return None
        return layer.slips_with(pads=(before, total - before))

    sizes = {v.config["size"] for v in run.program.layers.values() if v.kind == "conv1d"}
    for size in sorted(sizes):
        choices = {"causal": size - 1, "same": (size - 1) // 2, "behind": 0}
        if size % 2 == 0:
            choices["same, more before"] = size // 2
        for text, before in choices.items():
            for where, layers, made, _ in in_layers(run, ("conv1d",), functools.partial(change, before)):  # fmt: skip
                yield Planting("padding", f"{text} {where}", made, layers, listed=text in ("causal", "same"))  # fmt: skip
    for where, layers, made, _ in in_layers(run, ("pool1d",), lambda v: v.config_with(count_padding=True)):  # fmt: skip
        yield Planting("padding", f"counted {where}", made, layers, listed=False)


def epsilon(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    kinds = ("layer_normalization", "batch_normalization")
    for value in (1e-2, 1e-3, 1e-5, 1e-6, 1e-8):
        change = functools.partial(_config, "epsilon", value)
        for where, layers, made, listed in in_layers(run, kinds, change):
            yield Planting("epsilon", f"{value:g} {where}", made, layers, listed=listed)
    outside = functools.partial(lambda v: v.slips_with(epsilon_outside=True))
    for where, layers, made, _ in in_layers(run, ("layer_normalization",), outside):
        yield Planting("epsilon", f"outside the root {where}", made, layers, provable=False, listed=False)  # fmt: skip


def training_mode(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    statistics = functools.partial(lambda v: v.slips_with(batch_statistics=True))
    for where, layers, made, _ in in_layers(run, ("batch_normalization",), statistics):
        yield Planting("training_mode", f"statistics of the batch {where}", made, layers)
    seed = int(rng.integers(1 << 30))
    for rate in (0.2, 0.5):
        made = run.then(functools.partial(_dropped, rate, seed))
        yield Planting("training_mode", f"dropout {rate} on the outputs", made, provable=False)


def _dropped(rate: float, seed: int, outputs: Outputs) -> Outputs:
    rng = np.random.default_rng(seed)
    return {k: y * (rng.random(y.shape) >= rate) / (1 - rate) for k, y in outputs.items()}


def state_swapped(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    state: Mapping[str, Any] = run.data.state or {}
    pairs = {k: v for k, v in state.items() if "c" in v and v["h"].shape == v["c"].shape}
    swapped = {k: {"h": v["c"], "c": v["h"]} for k, v in pairs.items()}
    for name in swapped:
        made = run.inputs(state={**state, name: swapped[name]})
        yield Planting("state_swapped", f"in {name}", made, (name,) if len(swapped) > 1 else (name, None))  # fmt: skip
    if len(swapped) > 1:
        yield Planting("state_swapped", "in every layer", run.inputs(state={**state, **swapped}), (None, *swapped))  # fmt: skip
    for k, call in enumerate(run.program.calls):
        layer = run.program.layers[call.layer]
        if layer.kind == "lstm" and len(call.inputs) == 3 and not layer.config["masked"]:
            x, h, c = call.inputs
            calls = list(run.program.calls)
            calls[k] = replace(call, inputs=(x, c, h))
            made = replace(run, program=replace(run.program, calls=tuple(calls)))
            yield Planting("state_swapped", f"handed to {call.layer}", made, (call.layer, None))


def initial_state(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    kind, state = "initial_state", run.data.state or {}
    if state:
        yield Planting(kind, "given but ignored", run.inputs(state=None))
    for lost in ("h", "c"):
        if any("c" in v for v in state.values()):
            zeros = {k: {n: a * (n != lost) for n, a in v.items()} for k, v in state.items()}
            yield Planting(kind, f"{lost} lost", run.inputs(state=zeros))
    for name in state if len(state) > 1 else ():
        zeros = {k: {n: a * (k != name) for n, a in v.items()} for k, v in state.items()}
        yield Planting(kind, f"that of {name} lost", run.inputs(state=zeros), listed=False)
    for k, call in enumerate(run.program.calls):
        layer = run.program.layers[call.layer]
        if layer.kind == "lstm" and len(call.inputs) == 3 and not layer.config["masked"]:
            calls = list(run.program.calls)
            calls[k] = replace(call, inputs=call.inputs[:1])
            made = replace(run, program=replace(run.program, calls=tuple(calls)))
            yield Planting(kind, f"{call.layer} begins with zeros", made, (call.layer, None))
    promised = not state  # a state that is given for every sample is not carried, too
    carried = (
        ("not reset between samples", {"rows": 1}, promised),
        ("not reset between batches of 2", {"rows": 2}, False),
        ("second pass without reset", {"passes": 2}, promised),
        ("third pass without reset", {"passes": 3}, False),
    )
    for text, slips, listed in carried:
        yield Planting(kind, text, _every_cell(run, own=True, **slips), listed=listed)
    if all(not way and not c.config["go_backwards"] for _, way, c in run.program.cells()):
        for every in (1, 3, 5):
            yield Planting(
                kind, f"reset every {every} steps", _every_cell(run, own=True, reset_every=every)
            )
