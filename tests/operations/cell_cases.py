"""Cases of rare recurrent cells: peepholes, coupled gates, limits, an activation of the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from operations.case import MASK, SEQUENCE, STATE, Case, case

from npylstm.activations import Activation
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.masking import SequenceMask

__all__ = ["CASES"]

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def relu(x: Array) -> Array:
    return np.where(x > 0, x, 0)


def limited(clip: float | None, z: Array) -> Array:
    return z if clip is None else np.minimum(np.maximum(z, -clip), clip)


def lstm_of(layer: LSTM) -> Any:
    """Plain loops over samples and steps, one gate after the other."""

    def compute(w: Weights, x: Array) -> Array:
        hs = np.zeros((*x.shape[:2], layer.units))
        for n, sample in enumerate(x):
            h, c = np.zeros(layer.units), np.zeros(layer.units)
            for t, now in enumerate(sample):
                z = {g: now @ w[f"W_{g}"] + h @ w[f"U_{g}"] + w[f"b_{g}"] for g in "ifco"}
                peep = {g: w.get(f"p_{g}", np.zeros(layer.units)) for g in "ifo"}
                i = sigmoid(limited(layer.clip, z["i"] + peep["i"] * c))
                f = sigmoid(limited(layer.clip, z["f"] + peep["f"] * c))
                f = 1 - i if layer.coupled else f
                c = f * c + i * np.tanh(limited(layer.clip, z["c"]))
                o = sigmoid(limited(layer.clip, z["o"] + peep["o"] * c))
                h = o * (np.tanh(c) if layer.output_activation is None else relu(c))
                hs[n, t] = h
        return hs

    return compute


def gru_of(layer: GRU) -> Any:
    def compute(w: Weights, x: Array) -> Array:
        hs = np.zeros((*x.shape[:2], layer.units))
        h = np.zeros((len(x), layer.units))
        for t in range(x.shape[1]):
            now = x[:, t]
            z, r = (
                sigmoid(limited(layer.clip, now @ w[f"W_{g}"] + w[f"b_{g}"] + h @ w[f"U_{g}"]
                                + w.get(f"rb_{g}", 0)))
                for g in "zr"
            )  # fmt: skip
            inside = r * (h @ w["U_h"] + w["rb_h"]) if layer.reset_after else (r * h) @ w["U_h"]
            new = np.tanh(limited(layer.clip, now @ w["W_h"] + w["b_h"] + inside))
            h = z * h + (1 - z) * new
            hs[:, t] = h
        return hs

    return compute


def simple_of(layer: SimpleRNN) -> Any:
    def compute(w: Weights, x: Array) -> Array:
        hs, h = np.zeros((*x.shape[:2], layer.units)), np.zeros((len(x), layer.units))
        for t in range(x.shape[1]):
            z = x[:, t] @ w["W_h"] + h @ w["U_h"] + w["b_h"]
            h = np.tanh(limited(layer.clip, z))
            hs[:, t] = h
        return hs

    return compute


def cases() -> Iterator[Case]:
    every: dict[str, Any] = {"return_sequences": True}
    for flags in (
        {"peepholes": True}, {"coupled": True}, {"clip": 0.4},
        {"output_activation": Activation("relu")},
        {"peepholes": True, "coupled": True, "clip": 0.3, "output_activation": Activation("relu")},
    ):  # fmt: skip
        layer = LSTM(3, 4, **flags, **every)
        unread = ("W_f", "U_f", "b_f", "p_f") if layer.coupled else ()
        without_effect = tuple(set(unread) & set(layer.weight_shapes()))
        yield case(layer, SEQUENCE, oracle=lstm_of(layer), without_effect=without_effect)
    peephole = LSTM(3, 4, peepholes=True, go_backwards=True, masked=True, return_state=True)
    yield case(peephole, SEQUENCE, STATE, STATE, MASK, note="begins-peepholes-masked")
    for after in (True, False):
        gru = GRU(3, 4, clip=0.4, reset_after=after, **every)
        yield case(gru, SEQUENCE, oracle=gru_of(gru), note=f"clip-{after}")
    simple = SimpleRNN(3, 4, clip=0.4, **every)
    yield case(simple, SEQUENCE, oracle=simple_of(simple))

    def mask_of(weights: Weights, x: Array, lengths: Array) -> Array:
        return np.array([[float(t < n) for t in range(x.shape[1])] for n in lengths])

    yield case(SequenceMask(), SEQUENCE, ("batch",), oracle=mask_of, masks=(1,))
    yield case(SequenceMask(0), ("steps", "batch", 3), ("batch",), note="major", masks=(1,))


CASES = [*cases()]
