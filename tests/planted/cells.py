"""LSTM, GRU and simple recurrent layers over a sequence, straight from the papers.

Hochreiter, Schmidhuber 1997 with the forget gate of Gers 2000; Cho et al. 2014; Elman 1990. Every
mistake of a recurrent layer is a config or a switch in ``slips``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from planted.functions import Maths
from planted.program import Array, Layer

Carried = tuple[Array, ...]


def _bias(layer: Layer, key: str, like: Array) -> Array:
    return layer.weights[key] if key in layer.weights else np.zeros(like.shape[-1], like.dtype)


def _lstm(layer: Layer, x: Array, carried: Carried, m: Maths) -> tuple[Array, Carried]:
    h, c = carried
    w, slips, config = layer.weights, layer.slips, layer.config
    z = {g: m.affine(x, h, w[f"W_{g}"], w[f"U_{g}"], _bias(layer, f"b_{g}", w[f"W_{g}"])) for g in "ifco"}  # fmt: skip
    gate = {g: m.activate(config["recurrent_activation"], z[g]) for g in "ifo"}
    candidate = m.activate(slips.get("candidate", config["activation"]), z["c"])
    formula = slips.get("formula")
    if formula == "coupled":  # Greff et al. 2017, CIFG: not what the model was trained with
        gate["f"] = 1 - gate["i"]
    if formula == "output_inside":
        candidate = candidate * gate["o"]
    c = m.store(gate["f"] * c + gate["i"] * candidate)
    if "clip" in slips:
        c = np.clip(c, -slips["clip"], slips["clip"])
    h = m.store(gate["o"] * m.activate(slips.get("squash", config["activation"]), c))
    if formula == "power":
        h = np.sign(h) * np.abs(h) ** 1.1
    if config.get("projection"):
        h = m.store(m.product(h, w["P"]))
    return (c if slips.get("returns_c") else h), (h, c)


def _gru(layer: Layer, x: Array, carried: Carried, m: Maths) -> tuple[Array, Carried]:
    (h,) = carried
    w, slips, config = layer.weights, layer.slips, layer.config
    after = config["reset_after"]

    def gate(g: str) -> Array:
        b = _bias(layer, f"b_{g}", w[f"W_{g}"]) + _bias(layer, f"rb_{g}", w[f"W_{g}"])
        return m.activate(config["recurrent_activation"], m.affine(x, h, w[f"W_{g}"], w[f"U_{g}"], b))  # fmt: skip

    z, r = gate("z"), gate("r")
    b, rb = _bias(layer, "b_h", w["W_h"]), _bias(layer, "rb_h", w["W_h"])
    mine = m.store(m.product(x, w["W_h"]) + b)
    if not after:
        inner = m.product(r * h, w["U_h"]) + rb
    elif slips.get("bias_outside"):
        inner = r * m.product(h, w["U_h"]) + rb
    else:
        inner = r * m.store(m.product(h, w["U_h"]) + rb)
    if slips.get("formula") == "reset_all":
        mine, inner = mine * r, inner
    new = m.activate(config["activation"], m.store(mine + inner))
    if slips.get("formula") == "power":
        new = np.sign(new) * np.abs(new) ** 1.1
    if slips.get("update_inverted"):
        z = 1 - z
    h = m.store(z * h + (1 - z) * new)
    return h, (h,)


def _simple_rnn(layer: Layer, x: Array, carried: Carried, m: Maths) -> tuple[Array, Carried]:
    w = layer.weights
    z = m.affine(x, carried[0], w["W_h"], w["U_h"], _bias(layer, "b_h", w["W_h"]))
    h = m.activate(layer.config["activation"], z)
    if layer.slips.get("formula") == "power":
        h = np.sign(h) * np.abs(h) ** 1.1
    return h, (h,)


_STEPS = {"lstm": _lstm, "gru": _gru, "simple_rnn": _simple_rnn}


def state_sizes(layer: Layer) -> dict[str, int]:
    """Sizes of the carried state by name."""
    units = layer.config["units"]
    if layer.kind == "lstm":
        return {"h": layer.config.get("projection") or units, "c": units}
    return {"h": units}


def _once(
    layer: Layer, x: Array, carried: Carried, mask: Array | None, m: Maths
) -> tuple[Array, Carried]:
    """Outputs of all steps in the order of computation, and the state after them."""
    steps = x.shape[1]
    order = range(steps - 1, -1, -1) if layer.config["go_backwards"] else range(steps)
    every, begun = layer.slips.get("reset_every"), carried
    outputs: list[Array] = []
    for k, t in enumerate(order):
        if every and k and k % every == 0:
            carried = tuple(np.zeros_like(a) for a in begun)
        y, new = _STEPS[layer.kind](layer, x[:, t], carried, m)
        if mask is not None:
            counts = mask[:, t, None]
            zeros = layer.config["zero_output_for_mask"] or not outputs
            y = np.where(counts, y, np.zeros_like(y) if zeros else outputs[-1])
            new = tuple(np.where(counts, b, a) for a, b in zip(carried, new, strict=True))
        carried = new
        outputs.append(y)
    return np.stack(outputs, axis=1), carried


def run_cell(
    layer: Layer, x: Array, carried: Carried, mask: Array | None, m: Maths
) -> tuple[Array, Carried]:
    """Run a cell over ``(batch, steps, features)``, with whatever mistake its slips make of the state.

    ``rows``: the state is not reset between samples; so many rows are computed at a time.
    ``passes``: the whole batch was run before, and its state is not reset.
    """
    if layer.slips.get("ignore_mask"):
        mask = None
    for _ in range(layer.slips.get("passes", 1) - 1):
        _, carried = _once(layer, x, carried, mask, m)
    rows = layer.slips.get("rows")
    if not rows:
        return _once(layer, x, carried, mask, m)
    parts: list[tuple[Array, Carried]] = []
    state = tuple(a[:rows] for a in carried)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        state = tuple(a[: len(x[part])] for a in state)
        y, state = _once(layer, x[part], state, None if mask is None else mask[part], m)
        parts.append((y, state))
    after = tuple(np.concatenate(arrays) for arrays in zip(*(s for _, s in parts), strict=True))
    return np.concatenate([y for y, _ in parts]), after


def returned(layer: Layer, sequence: Array) -> Array:
    """What a cell's layer returns of its outputs in order of computation."""
    if not layer.config["return_sequences"]:
        if layer.slips.get("step") == "mean":
            return sequence.mean(axis=1)
        at: Any = layer.slips.get("step", -1)
        return sequence[:, at]
    if layer.slips.get("turned"):
        return sequence[:, ::-1]
    return sequence
