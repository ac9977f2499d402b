"""The modules of a weight file: inferred from names and shapes of tensors, or named by a pickle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from npylstm.arrays import Array
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.torch.module_options import options_of
from npylstm_converters.torch.pickled_modules import PickledModule

__all__ = ["GATES", "LAYER_OF_NAME", "RECURRENT", "Found", "find_modules"]

LAYER_OF_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?")
_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}
RECURRENT = (*GATES.values(), *(f"{kind}Cell" for kind in GATES.values()))


@dataclass(frozen=True)
class Found:
    """A module of a weight file.

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
    known
        Options that a pickled module holds: option to value.
    word
        For a module without tensors: the word of the chain that it is.
    refused
        Why a module of a pickle is not supported; empty if it is.
    of_torch
        Whether the file says that it is of this class of torch.
    cls
        The author's class that a pickle names; its tensors are those of ``kind``.
    root
        Whether it is the whole model, so that its tensors have no prefix.
    """

    name: str
    kind: str
    sizes: str
    tensors: Mapping[str, Array]
    asked: Mapping[str, str] = field(default_factory=dict)
    twin: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    word: Step | None = None
    refused: str = ""
    of_torch: bool = False
    cls: str = ""
    root: bool = False

    @property
    def prefix(self) -> str:
        """What stands before the names of its tensors in the file."""
        return "" if self.root else f"{self.name}."

    def __str__(self) -> str:
        options = (f", {k}={v}" for k, v in self.known.items())
        return f"{self.name}: {self.kind}({self.sizes}){''.join(options)}"


def find_modules(
    tensors: Mapping[str, Array], pickled: Mapping[str, PickledModule] | None = None
) -> list[Found]:
    """Return the modules in the order of the file.

    Parameters
    ----------
    tensors
        Arrays by name; their names and shapes determine the modules of a state_dict.
    pickled
        The modules of a pickle by path, with their classes and options.
    """
    groups: dict[str, dict[str, Array]] = {path: {} for path in pickled or {}}
    for name, array in tensors.items():
        path, _, leaf = name.rpartition(".")
        groups.setdefault(path, {})[leaf] = array
    found = []
    for path, own in groups.items():
        own.pop("num_batches_tracked", None)
        module = (pickled or {}).get(path)
        name = path or ("model" if "model" not in groups else "root")
        if module is None:
            found.append(replace(_judged(name, own), root=not path))
        elif own or (not module.children and module.cls.startswith("torch.nn.")):
            found.append(replace(_pickled(name, own, module), root=not path))
    return found


def _judged(name: str, own: Mapping[str, Array]) -> Found:
    """Return the module that tensors suggest."""
    for judge in (_recurrent, _cell, _normalization, _weighted):
        module = judge(name, own)
        if module is not None:
            return module
    listed = ", ".join(f"{k} {v.shape}" for k, v in own.items())
    return Found(name, "?", listed, own)


def _pickled(name: str, own: Mapping[str, Array], module: PickledModule) -> Found:
    """Return a module of a pickle, of the class that the file names."""
    options = options_of(module)
    if not options.kind:  # a class of the author's; tensors may suggest a base class
        judged = _judged(name, own)
        if judged.kind == "?":
            return replace(judged, kind=module.short)
        return replace(judged, cls=module.cls, twin="")
    if options.refused or not own:
        listed = ", ".join(f"{k} {v.shape}" for k, v in own.items())
        refused = options.refused or ("" if options.word else "has no weights")
        if options.word is not None:
            values = (*options.word.values, *(f"{k}={v}" for k, v in options.word.options.items()))
            listed = ", ".join(values)
        return Found(
            name, options.kind, listed, own, word=options.word, refused=refused, of_torch=True
        )
    judged = _judged(name, own)
    like = (*judged.kind.split(" or "), *(("LayerNorm",) if judged.kind == "PReLU" else ()))
    if options.kind not in like:  # a LayerNorm without bias looks like a PReLU
        refused = f"holds {judged.sizes}, which is no {options.kind}"
        return Found(name, options.kind, judged.sizes, own, refused=refused, of_torch=True)
    asked = {k: v for k, v in judged.asked.items() if k not in options.known and k != "kind"}
    return replace(
        judged, kind=options.kind, sizes=_sizes(judged, options.kind), asked=asked, twin="",
        known=options.known, of_torch=True,
    )  # fmt: skip


def _sizes(judged: Found, kind: str) -> str:
    """Return the sizes in words, for tensors that fit two kinds."""
    if judged.kind != "Linear or Embedding":
        return judged.sizes
    rows, columns = judged.tensors["weight"].shape
    return f"{rows} ids -> {columns}" if kind == "Embedding" else f"{columns} -> {rows}, no bias"


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
