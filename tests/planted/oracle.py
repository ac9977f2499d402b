"""The oracle: a vectorised forward pass in NumPy that shares no code with npylstm.

Formulas are those of the papers and of the frameworks' documentation. ``outputs_of`` runs a
:class:`~planted.program.Run`, in float64 for the truth or in float32 as somebody's program does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from planted.cells import Carried, returned, run_cell, state_sizes
from planted.functions import Maths
from planted.program import Array, Data, Layer, Outputs, Program, Run

Forward = Callable[[Layer, "list[Array]", Maths], tuple[Array, ...]]


class UnknownToOracleError(Exception):
    """A layer kind that the oracle has no formula for."""


def outputs_of(run: Run, dtype: type = np.float64, order: int = 0) -> Outputs:
    """Compute the outputs of somebody's program, rounded to float32."""
    made = forward(run.program, run.data, Maths(dtype, order, run.precision))
    for function in run.finish:
        made = function(made)
    return {name: np.asarray(y, np.float32) for name, y in made.items()}


def exact_outputs(run: Run) -> Outputs:
    """Compute the same in float64, not rounded."""
    made = forward(run.program, run.data, Maths(precision=run.precision))
    for function in run.finish:
        made = function(made)
    return made


def forward(program: Program, data: Data, m: Maths) -> Outputs:
    """Run all calls in order; every array in the type of ``m``."""
    tensors = {name: np.asarray(data.inputs[name], m.dtype) for name in program.inputs}
    mask = data.mask
    if data.lengths is not None:
        steps = next(iter(tensors.values())).shape[1]
        mask = np.arange(steps) < np.asarray(data.lengths)[:, None]
    batch = len(next(iter(tensors.values())))
    for call in program.calls:
        layer = _typed(program.layers[call.layer], m)
        inputs = [tensors[name] for name in call.inputs]
        if layer.recurrent:
            given = (data.state or {}).get(call.outputs[0], {})
            made = _recurrent(layer, inputs, given, mask, batch, m)
        elif layer.kind in _FORWARD:
            made = _FORWARD[layer.kind](layer, inputs, m)
        else:
            raise UnknownToOracleError(layer.kind)
        tensors.update((k, m.store(v)) for k, v in zip(call.outputs, made, strict=True))
    return {name: tensors[name] for name in program.outputs}


def _typed(layer: Layer, m: Maths) -> Layer:
    weights = {k: m.store(np.asarray(w, m.dtype)) for k, w in layer.weights.items()}
    parts = {way: _typed(part, m) for way, part in layer.parts.items()}
    return Layer(layer.kind, layer.config, weights, parts, layer.slips)


def _recurrent(
    layer: Layer,
    inputs: list[Array],
    given: Any,
    mask: Array | None,
    batch: int,
    m: Maths,
) -> tuple[Array, ...]:
    cells = layer.cells
    first = next(iter(cells.values())).config
    x, rest = inputs[0], inputs[1:]
    if first["time_major"]:
        x = x.swapaxes(0, 1)
    if first["masked"]:
        *rest, own = rest
        mask = own != 0
    mains: list[Array] = []
    states: list[Array] = []
    for way, cell in cells.items():
        sizes = state_sizes(cell)
        begin: Carried
        if rest:
            begin, rest = tuple(rest[: len(sizes)]), rest[len(sizes) :]
        else:
            names = [f"{way}/{n}" if way else n for n in sizes]
            zeros = [np.zeros((batch, size), m.dtype) for size in sizes.values()]
            begin = tuple(np.asarray(given.get(n, z), m.dtype) for n, z in zip(names, zeros, strict=True))  # fmt: skip
        sequence, after = run_cell(cell, x, begin, mask, m)
        main = returned(cell, sequence)
        # The sequence of a backward direction is turned into the input's order, whatever it read.
        if way == "backward" and cell.config["return_sequences"]:
            turn = cell.config["go_backwards"] and not layer.slips.get("not_turned")
            main = main[:, ::-1] if turn else main
        mains.append(main)
        states.extend(after)
    made = [_merged(layer, mains)] if len(mains) == 2 else mains
    if layer.config.get("merge_mode") == "none":
        made = mains
    if first["time_major"] and first["return_sequences"]:
        made = [y.swapaxes(0, 1) for y in made]
    return (*made, *states) if first["return_state"] else tuple(made)


def _merged(layer: Layer, mains: Sequence[Array]) -> Array:
    a, b = mains
    mode = layer.config["merge_mode"]
    if mode in ("concat", "none"):
        if layer.slips.get("backward_first"):
            a, b = b, a
        if layer.slips.get("interleaved"):
            return np.stack([a, b], -1).reshape(*a.shape[:-1], -1)
        return np.concatenate([a, b], -1)
    if mode == "mul":
        return a * b
    return (a + b) / 2 if mode == "ave" else a + b


def _masking(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    (x,) = inputs
    counts = (x != np.float32(layer.config["mask_value"])).any(-1)
    if layer.slips.get("absent"):  # a program without the layer
        return x, np.ones_like(counts).astype(m.dtype)
    if layer.slips.get("inverted"):
        return x * ~counts[..., None], (~counts).astype(m.dtype)
    return x * counts[..., None], counts.astype(m.dtype)


def _embedding(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    ids = inputs[0].astype(int)
    y = layer.weights["embeddings"][ids]
    if not layer.config["mask_zero"]:
        return (y,)
    counts = np.ones_like(ids, bool) if layer.slips.get("absent") else ids != 0
    return y, counts.astype(m.dtype)


def _dense(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    y = m.product(inputs[0], layer.weights["kernel"])
    if "bias" in layer.weights:
        y = y + layer.weights["bias"]
    return (m.activate(layer.config["activation"], m.store(y)),)


def _before_after(layer: Layer, steps: int) -> tuple[int, int]:
    config = layer.config
    span = (config["size"] - 1) * config["dilation"] + 1
    if "pads" in layer.slips:
        return tuple(layer.slips["pads"])
    if not config["same"]:
        return tuple(config["padding"])
    total = max((-(-steps // config["stride"]) - 1) * config["stride"] + span - steps, 0)
    return total // 2, total - total // 2  # TensorFlow puts the odd step behind


def _windows(layer: Layer, x: Array, fill: float) -> Array:
    """``(batch, places, window, features)`` by plain indexing."""
    config = layer.config
    before, after = _before_after(layer, x.shape[1])
    x = np.pad(x, ((0, 0), (before, after), (0, 0)), constant_values=fill)
    span = (config["size"] - 1) * config["dilation"] + 1
    starts = np.arange(0, x.shape[1] - span + 1, config["stride"])
    taps = np.arange(config["size"]) * config["dilation"]
    return x[:, starts[:, None] + taps]


def _conv1d(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    config, kernel = layer.config, layer.weights["kernel"]
    x = inputs[0].swapaxes(1, 2) if config["channels_first"] else inputs[0]
    windows = _windows(layer, x, 0.0)
    if layer.slips.get("flipped"):  # a convolution of textbooks, where frameworks correlate
        kernel = kernel[::-1]
    parts = []
    for w, k in zip(
        np.split(windows, config["groups"], axis=3),
        np.split(kernel, config["groups"], axis=2),
        strict=True,
    ):
        flat = w.reshape(*w.shape[:2], -1)
        parts.append(m.product(flat, k.reshape(-1, k.shape[-1])))
    y = np.concatenate(parts, -1)
    if "bias" in layer.weights:
        y = y + layer.weights["bias"]
    y = m.activate(config["activation"], y)
    return (y.swapaxes(1, 2) if config["channels_first"] else y,)


def _pool1d(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    config = layer.config
    x = inputs[0].swapaxes(1, 2) if config["channels_first"] else inputs[0]
    if config["operation"] == "max":
        y = _windows(layer, x, -np.inf).max(2)
    else:
        total = _windows(layer, x, 0.0).sum(2)
        count = _windows(layer, np.ones_like(x), 0.0).sum(2)
        y = total / (config["size"] if config["count_padding"] else count)
    return (y.swapaxes(1, 2) if config["channels_first"] else y,)


def _layer_normalization(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    (x,), config = inputs, layer.config
    axes = tuple(range(-len(config["shape"]), 0))
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred * centred).mean(axes, keepdims=True)
    eps = x.dtype.type(config["epsilon"])
    root = (
        np.sqrt(variance) + eps if layer.slips.get("epsilon_outside") else np.sqrt(variance + eps)
    )
    y = (centred if config["centered"] else x) / root
    return (_scaled(layer, y),)


def _scaled(layer: Layer, y: Array) -> Array:
    if "gamma" in layer.weights:
        y = y * layer.weights["gamma"]
    return y + layer.weights["beta"] if "beta" in layer.weights else y


def _batch_normalization(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    x = np.moveaxis(inputs[0], layer.config["axis"], -1)
    mean, variance = layer.weights["moving_mean"], layer.weights["moving_variance"]
    if layer.slips.get("batch_statistics"):  # of all samples and steps, as in training
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
    y = (x - mean) / np.sqrt(variance + x.dtype.type(layer.config["epsilon"]))
    return (np.moveaxis(_scaled(layer, y), -1, layer.config["axis"]),)


def _attention(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    query, value, key = inputs[0], inputs[1], inputs[-1]
    config, scale = layer.config, layer.weights.get("scale", np.ones(1, m.dtype))
    if config["masked"] or config["causal"] or config["score"] == "concat":
        raise UnknownToOracleError("attention with a mask")
    if config["score"] == "dot":
        scores = scale * m.product(query, key.swapaxes(1, 2))
    else:
        scores = (scale * np.tanh(query[:, :, None] + key[:, None])).sum(-1)
    weights = m.activate("softmax", scores)
    y = m.product(weights, value)
    return (y, weights) if config["return_scores"] else (y,)


def _heads(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    config, w = layer.config, layer.weights
    if config["masked"] or config["causal"] or config["window"]:
        raise UnknownToOracleError("multi-head attention with a mask")

    def project(x: Array, name: str) -> Array:
        kernel = w[f"{name}_kernel"]
        y = m.product(x, kernel.reshape(kernel.shape[0], -1)).reshape(
            *x.shape[:2], *kernel.shape[1:]
        )
        return (y + w.get(f"{name}_bias", np.zeros((), m.dtype))).transpose(0, 2, 1, 3)

    q, k, v = project(inputs[0], "query"), project(inputs[-1], "key"), project(inputs[1], "value")
    root = m.dtype(np.sqrt(config["key_units"]))
    weights = m.activate("softmax", m.product(q, k.swapaxes(2, 3)) / root)
    y = m.product(weights, v).transpose(0, 2, 1, 3).reshape(*inputs[0].shape[:2], -1)
    y = m.product(y, w["output_kernel"].reshape(-1, config["units"]))
    y = y + w.get("output_bias", np.zeros((), m.dtype))
    return (y, weights) if config["return_scores"] else (y,)


def _masked_mean(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    x, mask = inputs
    counts = np.ones_like(mask) if layer.slips.get("ignore_mask") else mask
    y = (x * counts[..., None]).sum(1) / counts.sum(1)[..., None]
    return (y[:, None] if layer.config["keepdims"] else y,)


_REDUCE: dict[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}  # fmt: skip
_BINARY: dict[str, Callable[..., Array]] = {
    "add": np.add, "average": np.add, "subtract": np.subtract, "multiply": np.multiply,
    "divide": np.divide, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


def _reduce(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    function = _REDUCE[layer.config["operation"]]
    return (function(inputs[0], axis=tuple(layer.config["axes"]), keepdims=layer.config["keepdims"]),)  # fmt: skip


def _arithmetic(layer: Layer, inputs: list[Array], m: Maths) -> tuple[Array, ...]:
    config, operands = layer.config, list(inputs)
    if config["after_batch"]:
        raise UnknownToOracleError("arithmetic with axes after the batch")
    if config["number"] is not None:
        operands.insert(0 if config["number_first"] else len(operands), m.dtype(config["number"]))
    y = operands[0]
    for operand in operands[1:]:
        y = _BINARY[config["operation"]](y, operand)
    return (y / len(operands) if config["operation"] == "average" else y,)


def _at(axis: int, index: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, index)


_FORWARD: dict[str, Forward] = {
    "masking": _masking,
    "embedding": _embedding,
    "dense": _dense,
    "conv1d": _conv1d,
    "pool1d": _pool1d,
    "layer_normalization": _layer_normalization,
    "batch_normalization": _batch_normalization,
    "attention": _attention,
    "multi_head_attention": _heads,
    "masked_mean": _masked_mean,
    "reduce": _reduce,
    "arithmetic": _arithmetic,
    "activation": lambda n, i, m: (m.activate(n.config["activation"], i[0]),),
    "identity": lambda n, i, m: (i[0],),
    "rescaling": lambda n, i, m: (m.dtype(n.config["scale"]) * i[0] + m.dtype(n.config["offset"]),),
    "constant": lambda n, i, m: (n.weights["value"],),
    "reshape": lambda n, i, m: (
        i[0].reshape([d if isinstance(d, int) else i[d[0]].shape[d[1]] for d in n.config["shape"]]),
    ),
    "stack": lambda n, i, m: (np.stack(i * n.config["times"], n.config["axis"]),),
    "select": lambda n, i, m: (i[0][_at(n.config["axis"], n.config["index"])],),
    "slice": lambda n, i, m: (
        i[0][_at(n.config["axis"], slice(n.config["start"], n.config["stop"], n.config["step"]))],
    ),
    "flip": lambda n, i, m: (np.flip(i[0], tuple(n.config["axes"])),),
    "transpose": lambda n, i, m: (i[0].transpose(n.config["axes"]),),
    "concatenate": lambda n, i, m: (np.concatenate(i, n.config["axis"]),),
    "pad": lambda n, i, m: (
        np.pad(i[0], [((n.config["before"], n.config["after"]) if a == n.config["axis"] else (0, 0)) for a in range(i[0].ndim)]),
    ),
}  # fmt: skip
