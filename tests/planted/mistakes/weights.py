"""Mistakes of those who read weights: orders, transposes, biases, other layers' arrays."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planted.mistakes.base import Planting, in_cells, in_layers
from planted.mistakes.data import sequence_outputs
from planted.program import Array, Layer, Run

# Orders in which other programs keep the gates of an LSTM and of a GRU.
_ORDERS = {
    "lstm": {"ONNX": "iofc", "TF1": "icfo", "CoreML": "ifoc", "forget first": "fico", "output first": "oifc"},
    "gru": {"PyTorch": "rzh", "candidate in the middle": "zhr", "candidate first": "hzr"},
}  # fmt: skip


def _permuted(theirs: str, letters: tuple[str, ...], inverse: bool, cell: Layer) -> Layer | None:
    """Read blocks that lie in the order ``theirs`` as if they lay in ours, or the other way round."""
    if len(theirs) != len(cell.gates) or len(theirs) == 1:
        return None
    pairs = zip(cell.gates, theirs, strict=True)
    pairs = [(b, a) for a, b in pairs] if inverse else [*pairs]
    return cell.weights_with(
        {
            f"{letter}_{mine}": cell.weights[f"{letter}_{true}"]
            for mine, true in pairs
            for letter in letters
            if f"{letter}_{true}" in cell.weights
        }
    )


def gates_permuted(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    kinds = {cell.kind for _, _, cell in run.program.cells()}
    for kind in sorted(kinds & set(_ORDERS)):
        for who, order in _ORDERS[kind].items():
            for inverse in (False, True):
                change = functools.partial(_permuted, order, ("W", "U", "b", "rb"), inverse)
                for where, layers, made, listed in in_cells(run, change):
                    text = f"{who} {'written' if inverse else 'read'} {where}"
                    yield Planting("gates_permuted", text, made, layers, listed=listed)
            for letters, what in ((("b", "rb"), "biases"), (("U",), "recurrent kernels")):
                change = functools.partial(_permuted, order, letters, False)
                for where, layers, made, _ in in_cells(run, change):
                    text = f"{who} {what} only {where}"
                    yield Planting("gates_permuted", text, made, layers, listed=False)


def other_memory_order(w: Array, columns: bool) -> Array:
    """Read a buffer in the other order: rows written, columns read, or the other way round."""
    return w.reshape(w.shape[::-1]).T if columns else w.T.reshape(w.shape)


def _gate_by_gate(letter: str, columns: bool, cell: Layer) -> Layer | None:
    arrays = {f"{letter}_{g}": cell.weights[f"{letter}_{g}"] for g in cell.gates}
    rows, units = next(iter(arrays.values())).shape
    if rows == units and columns:  # the same as rows
        return None
    return cell.weights_with({k: other_memory_order(w, columns) for k, w in arrays.items()})


def _whole(letter: str, columns: bool, cell: Layer) -> Layer | None:
    packed = np.concatenate([cell.weights[f"{letter}_{g}"] for g in cell.gates], 1)
    parts = np.split(other_memory_order(packed, columns), len(cell.gates), 1)
    return cell.weights_with({f"{letter}_{g}": w for g, w in zip(cell.gates, parts, strict=True)})


def _kernel(columns: bool, layer: Layer) -> Layer | None:
    w = layer.weights["kernel"]
    if columns and w.ndim == 2 and w.shape[0] == w.shape[1]:
        return None
    return layer.weights_with({"kernel": other_memory_order(w, columns)})


def _channels(layer: Layer) -> Layer | None:
    w = layer.weights["kernel"]
    return None if w.shape[1] != w.shape[2] else layer.weights_with({"kernel": w.swapaxes(1, 2)})


def kernel_transposed(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for columns in (False, True):
        order = "columns as rows" if columns else "rows as columns"
        for how, function in (("gate by gate", _gate_by_gate), ("whole", _whole)):
            change = functools.partial(function, "W", columns)
            for where, layers, made, listed in in_cells(run, change):
                text = f"{how}, {order} {where}"
                yield Planting("kernel_transposed", text, made, layers, listed=listed)
        change = functools.partial(_kernel, columns)
        for where, layers, made, listed in in_layers(run, ("dense", "conv1d"), change):
            yield Planting("kernel_transposed", f"{order} {where}", made, layers, listed=listed)
    for where, layers, made, listed in in_layers(run, ("conv1d",), _channels):
        text = f"channels {where}"
        yield Planting("kernel_transposed", text, made, layers, listed=listed)


def recurrent_kernel_transposed(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    kind = "recurrent_kernel_transposed"
    square = functools.partial(_gate_by_gate, "U", False)
    for where, layers, made, listed in in_cells(run, square):
        yield Planting(kind, where, made, layers, listed=listed)
    for columns in (False, True):
        for where, layers, made, _ in in_cells(run, functools.partial(_whole, "U", columns)):
            text = f"whole{', columns as rows' * columns} {where}"
            yield Planting(kind, text, made, layers, listed=False)


def _scaled_biases(letters: tuple[str, ...], factor: float, layer: Layer) -> Layer | None:
    keys = [k for k in layer.weights if k.rpartition("_")[0] in letters or k == "bias"]
    new = {k: np.float32(factor) * layer.weights[k] for k in keys}
    return layer.weights_with(new) if new else None


def _biases(run: Run, kind: str, factor: float) -> Iterator[Planting]:
    choices = [(("b", "rb"), "biases", True)]
    if any("rb_h" in cell.weights for _, _, cell in run.program.cells()):
        choices += [(("rb",), "recurrent biases", True), (("b",), "input biases", True)]
    for letters, what, promised in choices:
        change = functools.partial(_scaled_biases, letters, factor)
        for where, layers, made, listed in in_cells(run, change):
            yield Planting(kind, f"{what} {where}", made, layers, listed=listed and promised)
    change = functools.partial(_scaled_biases, (), factor)
    for where, layers, made, listed in in_layers(run, ("dense", "conv1d"), change):
        yield Planting(kind, where, made, layers, listed=listed)


def bias_missing(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    yield from _biases(run, "bias_missing", 0.0)


def bias_doubled(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    yield from _biases(run, "bias_doubled", 2.0)


def _forget(amount: float, cell: Layer) -> Layer | None:
    if cell.kind != "lstm":
        return None
    return cell.weights_with({"b_f": cell.weights["b_f"] + np.float32(amount)})


def forget_bias(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for amount, what in ((1.0, "added"), (-1.0, "left out")):
        for where, layers, made, listed in in_cells(run, functools.partial(_forget, amount)):
            yield Planting("forget_bias", f"{what} {where}", made, layers, listed=listed)


def _pairs(run: Run) -> Iterator[tuple[str, str]]:
    """Pairs of layers whose weights have the same shapes."""
    layers = [(k, v) for k, v in run.program.layers.items() if v.shapes]
    for at, (a, first) in enumerate(layers):
        for b, second in layers[at + 1 :]:
            if first.kind == second.kind and first.shapes == second.shapes:
                yield a, b


def with_weights_of(layer: Layer, other: Layer) -> Layer:
    parts = {way: with_weights_of(part, other.parts[way]) for way, part in layer.parts.items()}
    return replace(layer, weights=other.weights, parts=parts)


def layers_swapped(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    for a, b in _pairs(run):
        first, second = run.program.layers[a], run.program.layers[b]
        made = run.layer(a, with_weights_of(first, second)).layer(b, with_weights_of(second, first))
        also = ("output_order",) if {a, b} <= set(run.program.heads()) else ()
        yield Planting("layers_swapped", f"{a} and {b}", made, (a, b, None), also=also)


def directions_swapped(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    every, names = run, []
    for name, layer in run.program.layers.items():
        if not layer.parts:
            continue
        a, b = layer.parts["forward"], layer.parts["backward"]
        parts = {"forward": with_weights_of(a, b), "backward": with_weights_of(b, a)}
        names.append(name)
        yield Planting("directions_swapped", f"in {name}", run.layer(name, replace(layer, parts=parts)), (name,))  # fmt: skip
        every = every.layer(name, replace(layer, parts=parts))
        if layer.config["merge_mode"] == "concat":
            made = run.layer(name, layer.slips_with(backward_first=True))
            yield Planting("directions_swapped", f"backward output first in {name}", made, (name,), listed=False, also=("merge_mode",))  # fmt: skip
    if len(names) > 1:
        yield Planting("directions_swapped", "in every layer", every, (None, *names))


def weights_stale(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    kind = "weights_stale"
    for pair in _pairs(run):
        for a, b in (pair, pair[::-1]):
            made = run.layer(b, with_weights_of(run.program.layers[b], run.program.layers[a]))
            yield Planting(kind, f"{b} with the weights of {a}", made, (b,))
    for name, layer in run.program.layers.items():
        if layer.parts:
            a, b = layer.parts["forward"], layer.parts["backward"]
            made = run.layer(name, layer.parts_with("backward", with_weights_of(b, a)))
            yield Planting(kind, f"{name}/backward with the weights of forward", made, (name, f"{name}/backward"))  # fmt: skip
    for name in run.program.heads():
        head = run.program.layers[name]
        if head.kind != "dense":
            continue
        linear = head.config["activation"] == "linear"
        enough = solvable_rows(run) > head.weights["kernel"].shape[0] + 1
        drawn = {
            k: (w + rng.normal(0, 0.5, w.shape)).astype(np.float32) for k, w in head.weights.items()
        }
        for keys in (("kernel", "bias"), ("kernel",), ("bias",)):
            made = run.layer(name, head.weights_with({k: drawn[k] for k in keys}))
            text = f"another training's {' and '.join(keys)} in {name}"
            yield Planting(kind, text, made, (name,), provable=enough, listed=linear and enough)


def solvable_rows(run: Run) -> int:
    """How many rows the head computes: samples times steps where it reads sequences."""
    x = next(iter(run.data.inputs.values()))
    return int(np.prod(x.shape[:2])) if sequence_outputs(run) else len(x)


def normalization_swapped(run: Run, rng: np.random.Generator) -> Iterator[Planting]:
    def swap(a: str, b: str, layer: Layer) -> Layer | None:
        if a not in layer.weights or b not in layer.weights:
            return None
        return layer.weights_with({a: layer.weights[b], b: layer.weights[a]})

    kinds = ("layer_normalization", "batch_normalization")
    for a, b in (("gamma", "beta"), ("moving_mean", "moving_variance")):
        for where, layers, made, listed in in_layers(run, kinds, functools.partial(swap, a, b)):
            text = f"{a} and {b} {where}"
            yield Planting("normalization_swapped", text, made, layers, listed=listed)
    order = ("gamma", "beta", "moving_mean", "moving_variance")

    def caffe(layer: Layer) -> Layer | None:  # mean, variance, gamma, beta
        if not set(order) <= set(layer.weights):
            return None
        turned = order[2:] + order[:2]
        return layer.weights_with({k: np.abs(layer.weights[t]) for k, t in zip(order, turned, strict=True)})  # fmt: skip

    for where, layers, made, _ in in_layers(run, kinds, caffe):
        yield Planting("normalization_swapped", f"statistics first {where}", made, layers, listed=False)  # fmt: skip
