"""LoRA factors that a file stores with the kernel: merged into it, or an error.

Keras computes with ``W + (alpha / rank) A B`` (Hu et al., LoRA: Low-Rank Adaptation of Large
Language Models, 2021). It writes that sum into ``.keras`` and ``.weights.h5``, but the three arrays
into legacy ``.h5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm_converters.errors import Refusal
from npylstm_converters.keras.tensors import (
    LORA_ADVICE,
    LayerTensors,
    Source,
    is_lora,
    read_array,
    role_of,
)

__all__ = ["Merged", "merge_lora", "parts_of"]


@dataclass(frozen=True)
class Merged:
    """The sum of a weight and its LoRA factors, under the weight's path.

    ``weight`` (..., out), ``a`` (..., rank) and ``b`` (rank, out) are arrays of the file; ``scale``
    is alpha / rank.
    """

    weight: Source
    a: Source
    b: Source
    scale: float

    @property
    def path(self) -> str:
        return self.weight.path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weight.dtype

    def read(self) -> npt.NDArray[Any]:
        rank = self.b.shape[0]
        weight = read_array(self.weight, self.shape).astype(np.float64)
        a = read_array(self.a, (*self.shape[:-1], rank)).astype(np.float64)
        b = read_array(self.b, (rank, self.shape[-1])).astype(np.float64)
        return np.asarray(weight + self.scale * (a @ b), self.dtype)


def parts_of(source: Source) -> tuple[Source, ...]:
    """Return the file's arrays from which a source is computed."""
    return (source.weight, source.a, source.b) if isinstance(source, Merged) else (source,)


def merge_lora(config: Mapping[str, Any], tensors: LayerTensors) -> LayerTensors:
    """Return a layer's arrays with the LoRA factors merged into the weight.

    Parameters
    ----------
    config
        The layer's config; ``lora_alpha / lora_rank`` is the scale of the product.
    tensors
        Its arrays.

    Raises
    ------
    Refusal
        If there are factors and the config does not store their scale.
    """
    factors = {role_of(s.path, tensors.layer): s for s in tensors.sources if is_lora(s.path)}
    if not factors:
        return tensors
    found = ", ".join(s.path for s in factors.values())
    others = {role_of(s.path, tensors.layer): s for s in tensors.sources if not is_lora(s.path)}
    name = next((n for n in ("kernel", "embeddings") if n in others), "")
    a, b = factors.get(f"lora_{name}_a"), factors.get(f"lora_{name}_b")
    rank: Any = config.get("lora_rank")
    alpha: Any = config.get("lora_alpha")
    alpha = rank if alpha is None else alpha
    known = type(rank) is int and rank > 0 and type(alpha) in (int, float)
    if a is None or b is None or len(factors) != 2 or not known or b.shape[:1] != (rank,):
        raise Refusal(f"{LORA_ADVICE}; found {found}, and a config of lora_rank {rank!r:.40}")
    others[name] = Merged(others[name], a, b, alpha / rank)
    # Keras lists a weight frozen by LoRA after the others.
    order = sorted(others, key=lambda role: role != name)
    return tensors.of([others[role] for role in order])
