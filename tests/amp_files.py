"""Captures of amplifiers as their programs write them, with random weights and an oracle in float64.

Weights are made gate by gate; each format packs them here, by code that npylstm does not share.
All are multiples of 1/1024: exact in float32 and in decimals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import oracle

Array = np.ndarray[Any, Any]
Json = dict[str, Any]
Gates = Mapping[str, Array]

STEPS = 23


@dataclass(frozen=True)
class Capture:
    """A file, and what its network computes of an input (batch, steps, n)."""

    document: Json
    compute: Callable[[Array], Array]
    inputs: int = 1
    controls: list[str] = field(default_factory=list)

    def write(self, path: Path, **changes: Any) -> Path:
        path.write_text(json.dumps({**self.document, **changes}), encoding="utf-8")
        return path

    def x(self, batch: int = 2, steps: int = STEPS) -> Array:
        return np.random.default_rng(7).uniform(-1, 1, (batch, steps, self.inputs)).astype("f4")


def draw(rng: np.random.Generator, *shape: int, spread: float = 1.0) -> Array:
    """Numbers that are never zero and differ."""
    whole = rng.integers(64, 1024, shape) * rng.choice((-1, 1), shape)
    return np.round(whole * spread) / 1024


def gates(rng: np.random.Generator, names: str, features: int, units: int) -> dict[str, Array]:
    made = {}
    for g in names:
        made[f"W_{g}"] = draw(rng, features, units)
        made[f"U_{g}"] = draw(rng, units, units, spread=0.5)
        made[f"b_{g}"] = draw(rng, units)
        made[f"rb_{g}"] = draw(rng, units)
    return made


def summed(w: Gates) -> dict[str, Array]:
    """The two biases of an LSTM or a simple layer as one."""
    return {k: v + w[f"r{k}"] if k.startswith("b_") else v for k, v in w.items()}


def in_rows(w: Gates, order: str) -> list[Array]:
    """weight_ih, weight_hh, bias_ih, bias_hh of PyTorch."""
    return [
        np.concatenate([w[f"{name}_{g}"].T for g in order]) for name in ("W", "U", "b", "rb")
    ]  # fmt: skip


def in_columns(w: Gates, order: str) -> list[Array]:
    """Kernel, recurrent kernel and both biases of Keras."""
    return [np.concatenate([w[f"{n}_{g}"] for g in order], -1) for n in ("W", "U", "b", "rb")]


def dense(x: Array, kernel: Array, bias: Array | None = None, activation: str = "linear") -> Array:
    weights = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return oracle.dense(weights, x, activation)


def nam(units: int = 3, layers: int = 2, outputs: int = 1, seed: int = 0) -> Capture:
    rng = np.random.default_rng(seed)
    flat: list[Array] = []
    stack = []
    for k in range(layers):
        w = summed(gates(rng, "ifco", units if k else 1, units))
        h, c = draw(rng, units, spread=0.9), draw(rng, units)
        W, U, b, _ = in_rows({**w, **{f"rb_{g}": w["b_i"] for g in "ifco"}}, "ifco")
        flat += [np.hstack([W, U]).ravel(), b, h, c]
        stack.append((w, h, c))
    kernel, bias = draw(rng, outputs, units), draw(rng, outputs)
    flat += [kernel.ravel(), bias]

    def compute(x: Array) -> Array:
        for w, h, c in stack:
            x, _ = oracle.lstm(w, x, np.tile(h, (len(x), 1)), np.tile(c, (len(x), 1)))
        return dense(x, kernel.T, bias)

    config = {"input_size": 1, "hidden_size": units, "num_layers": layers}
    return Capture(
        {
            "version": "0.5.4", "metadata": {"name": "made up", "loudness": -18.5, "gain": 0.5},
            "architecture": "LSTM",
            "config": config if outputs == 1 else {**config, "out_channels": outputs},
            "weights": np.concatenate(flat).tolist(), "sample_rate": 48000.0,
        },
        compute,
    )  # fmt: skip


def guitarml(
    unit_type: str = "LSTM", inputs: int = 1, layers: int = 1, skip: int = 1, bias: bool = True,
    units: int = 4, seed: int = 1,
) -> Capture:  # fmt: skip
    rng = np.random.default_rng(seed)
    ours, theirs = {"LSTM": ("ifco",) * 2, "GRU": ("zrh", "rzh"), "RNN": ("h", "h")}[unit_type]
    tensors: Json = {}
    stack = []
    for k in range(layers):
        w = gates(rng, ours, units if k else inputs, units)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for name, array in zip(names, in_rows(w, theirs), strict=True):
            tensors[f"rec.{name}_l{k}"] = array.tolist()
        stack.append(w)
    kernel, offset = draw(rng, 1, units), draw(rng, 1)
    tensors["lin.weight"] = kernel.tolist()
    if bias:
        tensors["lin.bias"] = offset.tolist()

    def compute(x: Array) -> Array:
        y: Array = x
        for w in stack:
            if unit_type == "LSTM":
                y, _ = oracle.lstm(summed(w), y)
            else:
                y = oracle.gru(w, y) if unit_type == "GRU" else oracle.simple_rnn(summed(w), y)
        return dense(y, kernel.T, offset if bias else None) + (x[..., :1] if skip else 0)

    options = {
        "model": "SimpleRNN", "input_size": inputs, "skip": skip, "output_size": 1,
        "unit_type": unit_type, "num_layers": layers, "hidden_size": units, "bias_fl": bias,
    }  # fmt: skip
    controls = [f"param{k}" for k in range(1, inputs)]
    return Capture({"model_data": options, "state_dict": tensors}, compute, inputs, controls)


def aidax(
    kind: str = "lstm", inputs: int = 1, in_skip: int | None = None, in_gain: float = 0.0,
    out_gain: float = 0.0, recorded: int = 0, units: int = 4, seed: int = 2,
) -> Capture:  # fmt: skip
    rng = np.random.default_rng(seed)
    w = gates(rng, "ifco" if kind == "lstm" else "zrh", inputs, units)
    W, U, b, rb = in_columns(w, "ifco" if kind == "lstm" else "zrh")
    kernel, offset = draw(rng, units, 1), draw(rng, 1)
    biases = b + rb if kind == "lstm" else np.stack([b, rb])
    layers = [
        {
            "type": kind, "activation": "", "shape": [None, None, units],
            "weights": [W.tolist(), U.tolist(), biases.tolist()],
        },
        {
            "type": "dense", "activation": "", "shape": [None, None, 1],
            "weights": [kernel.tolist(), offset.tolist()],
        },
    ]  # fmt: skip

    def network(x: Array) -> Array:
        y = oracle.lstm(summed(w), x)[0] if kind == "lstm" else oracle.gru(w, x)
        y = dense(y, kernel, offset)
        return y + x[..., :1] if in_skip else y

    def compute(x: Array) -> Array:
        scaled = np.concatenate([x[..., :1] * 10 ** (in_gain / 20), x[..., 1:]], -1)
        return network(scaled) * 10 ** (out_gain / 20)

    document: Json = {"in_shape": [None, None, inputs], "layers": layers}
    document |= {"metadata": {"name": "made up", "samplerate": "48000"}}
    if in_skip is not None:
        document["in_skip"] = in_skip
    if in_gain or out_gain:
        document |= {"in_gain": in_gain, "out_gain": out_gain}
    if recorded:
        x = np.zeros((1, recorded, inputs))
        x[0, :, 0] = rng.uniform(-1, 1, recorded).astype("f4")
        document["input_batch"] = x[0, :, 0].tolist()
        document["output_batch"] = network(x)[0, :, 0].astype("f4").tolist()
    return Capture(document, compute, inputs, [f"param{k}" for k in range(1, inputs)])


def rtneural(seed: int = 3) -> Capture:
    """Every kind of layer: dense, gru, batchnorm, conv1d, prelu, activation, lstm, dense."""
    rng = np.random.default_rng(seed)
    d, e, last = (draw(rng, 1, 3), draw(rng, 3)), draw(rng, 4, 5), (draw(rng, 2, 1), draw(rng, 1))
    gru, lstm = gates(rng, "zrh", 3, 4), gates(rng, "ifco", 6, 2)
    norm = [draw(rng, 5), draw(rng, 5), draw(rng, 5), np.abs(draw(rng, 5))]
    kernel, offset, slopes = draw(rng, 3, 5, 6, spread=0.3), draw(rng, 6), np.abs(draw(rng, 6))
    W, U, b, rb = in_columns(gru, "zrh")
    V, R, c, rc = in_columns(lstm, "ifco")

    def layer(kind: str, units: int, *weights: Array, activation: str = "", **more: Any) -> Json:
        return {
            "type": kind, "activation": activation, "shape": [None, None, units],
            "weights": [w.tolist() for w in weights], **more,
        }  # fmt: skip

    layers = [
        layer("time-distributed-dense", 3, *d, activation="tanh"),
        layer("gru", 4, W, U, np.stack([b, rb]), activation="tanh"),
        layer("dense", 5, e, activation="elu"),
        layer("batchnorm", 5, *norm, epsilon=0.03125),
        layer("conv1d", 6, kernel, offset, kernel_size=[3], dilation=[2], groups=1),
        layer("prelu", 6, slopes[None]),
        layer("activation", 6, activation="sigmoid"),
        layer("lstm", 2, V, R, c + rc, activation=""),
        layer("dense", 1, *last),
    ]

    def compute(x: Array) -> Array:
        y = oracle.gru(gru, dense(x, *d, activation="tanh"))
        y = dense(y, e, activation="elu")
        gamma, beta, mean, variance = norm
        y = (y - mean) / np.sqrt(variance + 0.03125) * gamma + beta
        padded = np.concatenate([np.zeros((len(y), 4, 5)), y], 1)
        y = np.stack([sum(padded[:, t + 2 * k] @ kernel[k] for k in range(3)) + offset
                      for t in range(y.shape[1])], 1)  # fmt: skip
        y = np.where(y > 0, y, slopes * y)
        y, _ = oracle.lstm(summed(lstm), 1 / (1 + np.exp(-y)))
        return dense(y, *last)

    return Capture({"in_shape": [None, None, 1], "layers": layers}, compute)


CAPTURES: dict[str, Callable[[], Capture]] = {
    "nam": nam,
    "nam, one layer": lambda: nam(5, 1, seed=10),
    "nam, two outputs": lambda: nam(2, 3, outputs=2, seed=11),
    "guitarml lstm": guitarml,
    "guitarml lstm, two knobs": lambda: guitarml(inputs=3, seed=12),
    "automated gru, two layers, no skip": lambda: guitarml("GRU", layers=2, skip=0, bias=False),
    "automated rnn": lambda: guitarml("RNN", seed=13),
    "aidax lstm": aidax,
    "aidax lstm, skip and gains": lambda: aidax(in_skip=1, in_gain=-6.0, out_gain=3.0),
    "aidax gru, a knob": lambda: aidax("gru", inputs=2, in_skip=0),
    "aidax lstm, a knob, skip and gains": lambda: aidax(
        inputs=2, in_skip=1, in_gain=4.5, out_gain=-2.0
    ),
    "rtneural": rtneural,
}
