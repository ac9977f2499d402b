"""The ledger: which tensor of a source became which weights of which layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "became"]

# A tensor's name in a framework, and its possible weights here: names or prefixes of names.
_WEIGHTS: dict[str, tuple[str, ...]] = {
    # Keras.
    "kernel": ("W_",), "recurrent_kernel": ("U_",), "bias": ("b_", "rb_"),
    "W": ("kernel", "embeddings"), "b": ("bias",),
    "running_std": ("moving_variance",), "mean": ("moving_mean",), "variance": ("moving_variance",),
    # PyTorch.
    "weight_ih": ("W_",), "weight_hh": ("U_",), "bias_ih": ("b_",), "bias_hh": ("rb_",),
    "weight_hr": ("P",), "weight": ("kernel", "embeddings", "gamma", "alpha"),
    "running_mean": ("moving_mean",), "running_var": ("moving_variance",),
}  # fmt: skip
_ALSO = {"bias": ("beta",), "bias_hh": ("b_",)}  # if the layer has none of the above


@dataclass(frozen=True)
class Entry:
    """A tensor of the source, and the weights it was converted to.

    Without weights it is not used in inference; without a layer it is unused, as allowed.
    """

    source: str
    shape: tuple[int, ...]
    layer: str = ""
    weights: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON values for the provenance."""
        return {"source": self.source, "shape": list(self.shape), "layer": self.layer,
                "weights": list(self.weights)}  # fmt: skip


def became(role: str, weights: Sequence[str], prefix: str = "") -> tuple[str, ...]:
    """Return the layer's weights that a tensor was converted to.

    Parameters
    ----------
    role
        The tensor's name in the framework: ``recurrent_kernel``, ``bias_ih``.
    weights
        Names of the layer's weights.
    prefix
        Prefix of the possible names: ``forward/``.

    Returns
    -------
    tuple
        All weights if the role is unknown: some layers merge their arrays into one.
    """
    own = [name for name in weights if name.startswith(prefix)]
    if f"{prefix}{role}" in own:
        return (f"{prefix}{role}",)
    for known in (_WEIGHTS, _ALSO):
        found = tuple(_matching(own, [f"{prefix}{name}" for name in known.get(role, ())]))
        if found:
            return found
    return tuple(own)


def _matching(names: Iterable[str], wanted: Sequence[str]) -> Iterable[str]:
    for name in names:
        if name in wanted or any(w.endswith("_") and name.startswith(w) for w in wanted):
            yield name
