"""The modules of a state_dict, inferred from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from npylstm.arrays import Array

__all__ = ["GATES", "LAYER_OF_NAME", "RECURRENT", "Found", "find_modules"]

LAYER_OF_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?")
_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}
RECURRENT = (*GATES.values(), *(f"{kind}Cell" for kind in GATES.values()))


@dataclass(frozen=True)
class Found:
    """A module inferred from a state_dict.

    Attributes
    ----------
    name
        Its path; ``"model"`` for a module that was saved alone.
    kind
        Its class in ``torch.nn``, or several that fit, or ``"?"``.
    sizes
        Its sizes in readable form: ``1 -> 5, 2 layers, bidirectional``.
    tensors
        Its arrays, by their names in the module.
    asked
        Options that its tensors do not determine: option to example.
    twin
        Another class with the same tensors.
    """

    name: str
    kind: str
    sizes: str
    tensors: Mapping[str, Array]
    asked: Mapping[str, str] = field(default_factory=dict)
    twin: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}({self.sizes})"


def find_modules(tensors: Mapping[str, Array]) -> list[Found]:
    """Return the modules in the order of the file, from the names and shapes of their tensors."""
    groups: dict[str, dict[str, Array]] = {}
    for name, array in tensors.items():
        path, _, leaf = name.rpartition(".")
        groups.setdefault(path, {})[leaf] = array
    found = []
    for path, own in groups.items():
        own.pop("num_batches_tracked", None)
        name = path or "model"
        for judge in (_recurrent, _cell, _normalization, _weighted):
            module = judge(name, own)
            if module is not None:
                found.append(module)
                break
        else:
            listed = ", ".join(f"{k} {v.shape}" for k, v in own.items())
            found.append(Found(name, "?", listed, own))
    return found


def _recurrent(name: str, own: Mapping[str, Array]) -> Found | None:
    matches = [LAYER_OF_NAME.fullmatch(leaf) for leaf in own]
    if not matches or not all(matches) or "weight_ih_l0" not in own or "weight_hh_l0" not in own:
        return None
    if any(array.ndim != 1 + leaf.startswith("weight") for leaf, array in own.items()):
        return None
    layers = 1 + max(int(m[2]) for m in matches if m)
    projection = own.get("weight_hr_l0")
    ih, hh = own["weight_ih_l0"], own["weight_hh_l0"]
    units = hh.shape[1] if projection is None else projection.shape[1]
    gates = ih.shape[0] / units if units else 0
    kind = GATES.get(int(gates)) if gates == int(gates) else None
    if kind is None or (projection is not None and kind != "LSTM"):
        return None
    words = [f"{ih.shape[1]} -> {units}"]
    words += [f"{layers} layers"] if layers > 1 else []
    words += ["bidirectional"] if "weight_ih_l0_reverse" in own else []
    words += [f"projection {projection.shape[0]}"] if projection is not None else []
    words += ["no bias"] if "bias_ih_l0" not in own else []
    asked = {"nonlinearity": "tanh or relu"} if kind == "RNN" else {}
    return Found(name, kind, ", ".join(words), own, asked)


def _cell(name: str, own: Mapping[str, Array]) -> Found | None:
    if not {"weight_ih", "weight_hh"} <= set(own) <= set(_CELL):
        return None
    units = own["weight_hh"].shape[-1]
    kind = GATES.get(own["weight_ih"].shape[0] // units if units else 0)
    if kind is None:
        return None
    asked = {"nonlinearity": "tanh or relu"} if kind == "RNN" else {}
    sizes = f"{own['weight_ih'].shape[-1]} -> {units}"
    return Found(name, f"{kind}Cell", sizes, own, asked)


def _normalization(name: str, own: Mapping[str, Array]) -> Found | None:
    if any(array.ndim != 1 for array in own.values()):
        return None
    if {"running_mean", "running_var"} <= set(own) <= {
        "weight", "bias", "running_mean", "running_var",
    }:  # fmt: skip
        size, twin = str(len(own["running_mean"])), "InstanceNorm1d"
        return Found(name, "BatchNorm1d", size, own, {"eps": "1e-5"}, twin)
    if set(own) == {"weight", "bias"}:
        return Found(name, "LayerNorm", f"{len(own['weight'])}", own, {"eps": "1e-5"}, "GroupNorm")
    if set(own) == {"weight"}:
        count = len(own["weight"])
        return Found(name, "PReLU", str(count), own, twin="RMSNorm" if count > 1 else "")
    return None


def _weighted(name: str, own: Mapping[str, Array]) -> Found | None:
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or not set(own) <= {"weight", "bias"}:
        return None
    shape, no_bias = weight.shape, ", no bias" if bias is None else ""
    if bias is not None and bias.shape != shape[:1]:
        return None
    if weight.ndim == 3:
        asked = {"stride": "1", "padding": "0", "dilation": "1", "groups": "1"}
        sizes = f"{shape[1]} -> {shape[0]}, kernel {shape[2]}{no_bias}"
        twin = "ConvTranspose1d" if bias is None or shape[0] == shape[1] else ""
        return Found(name, "Conv1d", sizes, own, asked, twin)
    if weight.ndim != 2:
        return None
    if bias is None:
        asked = {"kind": "linear or embedding"}
        sizes = f"{shape[1]} -> {shape[0]}, no bias, or {shape[0]} ids -> {shape[1]}"
        return Found(name, "Linear or Embedding", sizes, own, asked)
    return Found(name, "Linear", f"{shape[1]} -> {shape[0]}", own)
