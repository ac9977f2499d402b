"""Weights that a module computes from other tensors: weight norm, spectral norm, pruning, dropout.

The functions return the weights that the module uses in evaluation mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from npylstm import FormatError, UnsupportedError
from npylstm.arrays import Array

__all__ = ["without_reparametrizations"]

_PARAMETRIZED = re.compile(r"(?P<path>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)")
# WeightDrop of AWD-LSTM and fastai: the weights of its module, without dropout, under another name.
_RAW = re.compile(r"(?P<path>(?:.*\.)?)(?P<name>(?:weight|bias)_[ih]h_l\d+(?:_reverse)?)_raw")
_WEIGHT_NORM, _SPECTRAL_NORM = {"original0", "original1"}, {"original", "0._u", "0._v"}

Arrays = Mapping[str, Array]


def without_reparametrizations(arrays: Arrays) -> tuple[dict[str, Array], list[str]]:
    """Return arrays with plain weights, and a note on each weight that was computed.

    Parameters
    ----------
    arrays
        The tensors of a state_dict by name.

    Raises
    ------
    UnsupportedError
        Lists parametrizations that are not known.
    FormatError
        If the parts of one do not fit, or the plain weight is there, too.
    """
    computed: dict[str, tuple[tuple[str, ...], Array, str]] = {}
    for find in (_parametrizations, _pairs_of_norms, _spectral_norms, _pruned):
        for whole, parts, array, note in find(arrays):
            computed[whole] = (parts, array, f"{whole}: {note}")
    belongs = {part: whole for whole, (parts, _, _) in computed.items() for part in parts}
    made: dict[str, Array] = {}
    for name, array in arrays.items():
        whole = belongs.get(name, name)
        made.setdefault(whole, array if whole == name else computed[whole][1])
    made, dropped = _without_weight_drop(made)
    return made, [*(note for _, _, note in computed.values()), *dropped]


Found = Iterable[tuple[str, tuple[str, ...], Array, str]]


def _parametrizations(arrays: Arrays) -> Found:
    """Yield what torch.nn.utils.parametrizations makes: name, parts, weight, note."""
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        match = _PARAMETRIZED.fullmatch(name)
        if match is not None:
            groups.setdefault(f"{match['path']}{match['name']}", {})[match["part"]] = name
    others = [
        f"{name}: a parametrization other than weight_norm and spectral_norm; remove it by "
        "torch.nn.utils.parametrize.remove_parametrizations before saving"
        for parts in groups.values()
        if set(parts) != _SPECTRAL_NORM and not set(parts) <= _WEIGHT_NORM
        for name in parts.values()
    ]
    if others:
        raise UnsupportedError(others)
    for whole, parts in groups.items():
        if whole in arrays or f"{whole}_g" in arrays:
            raise FormatError(f"{whole}: is in the file with and without its parametrization")
        own = {part: arrays[name] for part, name in parts.items()}
        if set(parts) == _SPECTRAL_NORM:
            made = _spectrally_normed(own["original"], own["0._u"], own["0._v"])
            if made is None:
                raise FormatError(f"{whole}: expected the parts of a spectral norm")
            yield whole, tuple(parts.values()), made, "spectral norm applied"
        elif set(parts) == _WEIGHT_NORM and _is_norm(own["original0"], own["original1"]):
            made = _normed(own["original0"], own["original1"])
            yield whole, tuple(parts.values()), made, "weight norm applied"
        else:
            raise FormatError(f"{whole}: expected the two parts of a weight norm")


def _with_suffixes(arrays: Arrays, *suffixes: str) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield the names x of which all x + suffix are there, and x itself is not."""
    for name in arrays:
        whole = name.removesuffix(suffixes[0])
        parts = tuple(whole + suffix for suffix in suffixes)
        if whole != name and whole not in arrays and all(part in arrays for part in parts):
            yield whole, parts


def _pairs_of_norms(arrays: Arrays) -> Found:
    """Yield pairs ``x_g``, ``x_v`` of the older weight_norm; others are parameters like any."""
    for whole, parts in _with_suffixes(arrays, "_g", "_v"):
        g, v = (arrays[part] for part in parts)
        if _is_norm(g, v):
            yield whole, parts, _normed(g, v), "weight norm applied"


def _spectral_norms(arrays: Arrays) -> Found:
    """Yield what the older spectral_norm makes."""
    for whole, parts in _with_suffixes(arrays, "_orig", "_u", "_v"):
        made = _spectrally_normed(*(arrays[part] for part in parts))
        if made is not None:
            yield whole, parts, made, "spectral norm applied"


def _pruned(arrays: Arrays) -> Found:
    """Yield what torch.nn.utils.prune makes: ``x_orig * x_mask``."""
    for whole, parts in _with_suffixes(arrays, "_orig", "_mask"):
        weight, mask = (arrays[part] for part in parts)
        if weight.shape == mask.shape:
            yield whole, parts, weight * mask.astype(weight.dtype), "pruned by its mask"


def _without_weight_drop(arrays: Arrays) -> tuple[dict[str, Array], list[str]]:
    """Return arrays with raw weights under the names that WeightDrop's module reads."""
    raw: dict[str, str] = {}
    for name in arrays:
        match = _RAW.fullmatch(name)
        if match is not None:
            raw[name] = f"{match['path']}{match['name']}"
    owners = {name.rpartition(".")[0] for name in raw}
    inner = tuple(f"{owner}.module." if owner else "module." for owner in owners)
    made: dict[str, Array] = {}
    for name, array in arrays.items():
        prefix = next((p for p in inner if name.startswith(p)), "")
        plain = f"{prefix.removesuffix('module.')}{name[len(prefix) :]}"
        if name not in raw and plain not in raw.values():
            made[plain] = array
    made |= {plain: arrays[name] for name, plain in raw.items()}
    return made, [f"{plain}: from {name}, as WeightDrop uses it" for name, plain in raw.items()]


def _spectrally_normed(weight: Array, u: Array, v: Array) -> Array | None:
    """Return ``W / (u W v)``; None if the shapes do not fit.

    W is the weight as a matrix, with the rows along axis 0, or along axis 1 in a transposed
    convolution, as torch has it by default.
    """
    if weight.ndim < 2 or {weight.dtype.kind, u.dtype.kind, v.dtype.kind} != {"f"}:
        return None
    for axis in (0, 1):
        rows = weight.shape[axis]
        if u.shape == (rows,) and v.shape == (weight.size // max(rows, 1),):
            matrix = np.moveaxis(weight, axis, 0).reshape(rows, -1).astype(np.float64)
            sigma = weight.dtype.type(u.astype(np.float64) @ (matrix @ v.astype(np.float64)))
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(weight / sigma)
    return None


def _is_norm(g: Array, v: Array) -> bool:
    """Whether g has the shape of norms of v: one for each entry of one axis, or one for all."""
    if g.dtype.kind != "f" or v.dtype.kind != "f" or v.ndim == 0:
        return False
    wide = [k for k, size in enumerate(g.shape) if size != 1]
    return g.ndim == 0 or (
        g.ndim == v.ndim and len(wide) <= 1 and all(g.shape[k] == v.shape[k] for k in wide)
    )


def _normed(g: Array, v: Array) -> Array:
    wide = v.astype(np.float64)
    axes = tuple(k for k in range(v.ndim) if not g.ndim or g.shape[k] == 1)
    norm = np.sqrt(np.sum(wide * wide, axis=axes, keepdims=True)).astype(v.dtype)
    # In the weights' type and torch's order: the product equals torch's, with nan for a zero row.
    with np.errstate(divide="ignore", invalid="ignore"):
        normed: Array = v * (g / norm)
    return normed
