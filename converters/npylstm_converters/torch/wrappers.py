"""Reverts the changes of DataParallel and weight norm to a state_dict."""

from __future__ import annotations

import re

import numpy as np

from npylstm import FormatError, UnsupportedError
from npylstm.arrays import Array

__all__ = ["without_prefix", "without_weight_norm"]


def without_prefix(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays without DataParallel's prefix ``module.``."""
    while arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


_PARAMETRIZED = re.compile(
    r"(?P<path>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.original(?P<k>\d?)"
)


def without_weight_norm(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays with weight norm applied: ``w = g v / |v|``, with one g for each row.

    Pairs named ``x_g`` and ``x_v`` count only if their shapes fit.
    """
    pairs: dict[str, dict[str, str]] = {}
    for name in arrays:
        match = _PARAMETRIZED.fullmatch(name)
        if match is None:
            continue
        if match["k"] not in ("0", "1"):
            raise UnsupportedError(
                [f"{name}: a parametrization other than weight_norm; remove it by "
                 "torch.nn.utils.parametrize.remove_parametrizations before saving"]
            )  # fmt: skip
        whole = f"{match['path']}{match['name']}"
        if whole in arrays or f"{whole}_g" in arrays:
            raise FormatError(f"{whole}: is in the file with and without its weight norm")
        pairs.setdefault(whole, {})["gv"[int(match["k"])]] = name
    for whole, parts in pairs.items():
        if set(parts) != {"g", "v"} or not _is_norm(*(arrays[parts[k]] for k in "gv")):
            raise FormatError(f"{whole}: expected the two parts of a weight norm")
    for name in arrays:
        whole, other = name[:-2], f"{name[:-2]}_v"
        there = name.endswith("_g") and other in arrays and whole not in arrays
        if there and _is_norm(arrays[name], arrays[other]):
            pairs[whole] = {"g": name, "v": other}
    belongs = {name: whole for whole, parts in pairs.items() for name in parts.values()}
    made: dict[str, Array] = {}
    for name, array in arrays.items():
        whole = belongs.get(name, name)
        if whole == name:
            made[name] = array
        elif whole not in made:
            made[whole] = _normed(*(arrays[pairs[whole][k]] for k in "gv"))
    return made


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
