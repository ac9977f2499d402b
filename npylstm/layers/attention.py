"""Attention: each query takes the values whose keys are like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import FormatError, UnequalError
from npylstm.layers.base import Array, Layer, Shape, format_shape

__all__ = ["Attention"]

_SCORES = ("dot", "additive")


@dataclass(frozen=True)
class Attention(Layer):
    """Average values by how well their keys fit a query: ``softmax(score(q, k)) v``.

    Inputs are queries ``(batch, queries, features)``, values ``(batch, steps, units)`` and, if they
    are not the values themselves, keys ``(batch, steps, features)``. Sums run in float64.

    Parameters
    ----------
    score
        ``"dot"``: ``scale * (q . k)``; ``"additive"``: ``sum of scale * tanh(q + k)``.
    features
        Size of the scale of ``"additive"``; 0 where there is none.
    scaled
        Whether there is a scale.

    Weights
    -------
    With ``scaled`` ``scale``: (1,) for ``"dot"``, (features,) for ``"additive"``.

    References
    ----------
    Luong, Pham, Manning: Effective Approaches to Attention-based Neural Machine Translation, 2015.
    Bahdanau, Cho, Bengio: Neural Machine Translation by Jointly Learning to Align and Translate,
    ICLR 2015.
    """

    kind: ClassVar[str] = "attention"

    score: str = "dot"
    features: int = 0
    scaled: bool = False

    def __post_init__(self) -> None:
        if self.score not in _SCORES:
            raise FormatError(
                f"score: expected one of {', '.join(_SCORES)}, got {self.score!r:.40}"
            )

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.scaled:
            return {}
        return {"scale": (1,) if self.score == "dot" else (self.features,)}

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        listed = ", ".join(map(format_shape, inputs))
        if len(inputs) not in (2, 3) or any(len(shape) != 3 for shape in inputs):
            raise FormatError(f"expected two or three inputs of 3 axes, got {listed}")
        query, value, key = inputs[0], inputs[1], inputs[-1]
        equal = (query[0], value[0]), (key[0], value[0]), (value[1], key[1]), (query[2], key[2])
        for pair in equal:
            if pair[0] != pair[1]:
                raise UnequalError(f"shapes {listed} do not fit together", pair)
        return ((*query[:2], value[2]),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        query, value, key = (x.astype(np.float64) for x in (inputs[0], inputs[1], inputs[-1]))
        scale = packed["scale"] if self.scaled else np.float64(1)
        if self.score == "dot":
            scores = scale * (query @ key.swapaxes(1, 2))
        else:
            scores = (scale * np.tanh(query[:, :, None] + key[:, None])).sum(axis=-1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return ((weights @ value).astype(inputs[0].dtype),), {}
