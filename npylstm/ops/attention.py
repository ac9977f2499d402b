"""Attention: weighted means of values, with weights from queries and keys."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.blas import matmul
from npylstm.errors import FormatError, SizeMismatchError
from npylstm.ops.attention_weights import ATTENTION_MASK, add_mask, allowed_keys, attention_weights
from npylstm.ops.axis_map import At, AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_entries, positive
from npylstm.ops.shapes import Shape, format_shape

__all__ = ["ATTENTION_MASK", "Attention", "MultiHeadAttention"]

_SCORES = ("dot", "additive", "concat")
_FULLY_MASKED = ("lowered", "additive", "uniform", "zero")


def _split(
    inputs: Sequence[Shape], masked: tuple[int, ...]
) -> tuple[Sequence[Shape], Sequence[Shape]]:
    """Separate queries, values and keys from their masks, and check their shapes."""
    listed = ", ".join(map(format_shape, inputs))
    count = len(inputs) - len(masked)
    tensors, masks = inputs[:count], inputs[count:]
    if count not in (2, 3) or any(len(shape) != 3 for shape in tensors):
        raise FormatError(f"expected two or three inputs of 3 axes, got {listed}")
    query, value, key = tensors[0], tensors[1], tensors[-1]
    for pair in ((query[0], value[0]), (key[0], value[0]), (value[1], key[1])):
        if pair[0] != pair[1]:
            raise SizeMismatchError(f"shapes {listed} do not fit together", pair)
    check_entries("attention", value, (1,))
    for which, mask in zip(masked, masks, strict=True):
        along = (*query[:2], value[1]) if which == ATTENTION_MASK else tensors[which % count][:2]
        if (which >= count and which != ATTENTION_MASK) or mask != along:
            raise FormatError(f"mask {format_shape(mask)} does not fit the inputs {listed}")
    return tensors, masks


def _axes(
    shapes: Sequence[Shape], masked: tuple[int, ...], by_position: bool, scores: bool, heads: bool
) -> tuple[AxisMap, ...]:
    """Return the axis maps of the output and, with ``scores``, of the attention weights."""
    count = len(shapes) - len(masked)
    masks = dict(zip(masked, range(count, len(shapes)), strict=True))
    batch = tuple((k, 0) for k in range(len(shapes)))
    queries = [(0, 1), *((masks[which], 1) for which in (0, ATTENTION_MASK) if which in masks)]
    mixed: dict[At, str] = {(k, 1): "attends" for k in range(1, len(shapes))}
    mixed |= {(0, 2): "sums", **{(k, 2): "sums" for k in range(1, len(shapes))}}
    for at in queries:
        mixed.pop(at, None)
        if by_position:
            mixed[at] = "attends by position"
    made = AxisMap((batch, () if by_position else tuple(queries), ()), mixed)
    if not scores:
        return (made,)
    batch, rows, _ = made.sources
    return made, made._replace(sources=(batch, *(((),) if heads else ()), rows, ()))


def _check_masked(masked: tuple[int, ...]) -> None:
    if list(masked) != sorted(set(masked)) or not set(masked) <= {0, 1, 2, ATTENTION_MASK}:
        raise FormatError(f"masked: expected some of 0, 1, 2, 3 in order, got {masked}")


@dataclass(frozen=True)
class Attention(Operation):
    """Average values by how well their keys fit a query: ``softmax(score(q, k)) v``.

    Inputs are queries ``(batch, queries, features)``, values ``(batch, steps, units)`` and, if they
    are not the values themselves, keys ``(batch, steps, features)``; then the masks. Sums are
    computed in float64.

    Parameters
    ----------
    score
        ``"dot"``: ``scale * (q . k)``; ``"additive"``: ``sum of scale * tanh(q + k)``;
        ``"concat"``: ``score_weight * sum of tanh(scale * (q + k))``.
    features
        Size of the scale of ``"additive"``; 0 where there is none.
    scaled
        Whether there is a scale.
    masked
        The inputs that have a mask, in order: 0 for the queries, 1 for the values. Masked values
        get no weight; masked queries give zeros.
    causal
        A query attends to no step later than its own.
    return_scores
        Return the weights ``(batch, queries, steps)`` as a second output.
    mask_in_float32
        For queries without an allowed value 1e9 is subtracted from the scores in float32; else in
        float64.

    Weights
    -------
    With ``scaled`` ``scale``: (1,), or (features,) for ``"additive"``; for ``"concat"``
    ``score_weight`` (1,).

    References
    ----------
    Luong, Pham, Manning: Effective Approaches to Attention-based Neural Machine Translation, 2015.
    Bahdanau, Cho, Bengio: Neural Machine Translation by Jointly Learning to Align and Translate,
    ICLR 2015.
    """

    kind: ClassVar[str] = "attention"
    is_stricter: ClassVar[bool] = True

    score: str = "dot"
    features: int = 0
    scaled: bool = False
    masked: tuple[int, ...] = ()
    causal: bool = False
    return_scores: bool = False
    mask_in_float32: bool = True

    def __post_init__(self) -> None:
        if self.score not in _SCORES:
            raise FormatError(
                f"score: expected one of {', '.join(_SCORES)}, got {self.score!r:.40}"
            )
        _check_masked(self.masked)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        if self.scaled:
            shapes["scale"] = (self.features,) if self.score == "additive" else (1,)
        if self.score == "concat":
            shapes["score_weight"] = (1,)
        return shapes

    @property
    def mask_input_count(self) -> int:
        return 2

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return self.masked

    def with_masks(self, which: Collection[int]) -> Operation:
        return replace(self, masked=tuple(sorted({*self.masked, *which})))

    def output_names(self) -> tuple[str, ...]:
        return ("", "scores") if self.return_scores else ("",)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        (query, value, *_), _ = _split(inputs, self.masked)
        key = inputs[len(inputs) - len(self.masked) - 1]
        if query[2] != key[2]:
            listed = ", ".join(map(format_shape, inputs))
            raise SizeMismatchError(f"shapes {listed} do not fit together", (query[2], key[2]))
        if self.score == "additive" and self.scaled and query[2] != self.features:
            raise FormatError(
                f"a scale of {self.features} features does not fit queries of {query[2]}"
            )
        made: tuple[Shape, ...] = ((*query[:2], value[2]),)
        return (*made, (*query[:2], value[1])) if self.return_scores else made

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return _axes(shapes, self.masked, self.causal, self.return_scores, heads=False)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        (batch, queries, features), (_, keys, units) = shapes[:2]
        return batch * queries * keys * (features + units)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.infer_shapes([x.shape for x in inputs])
        count = len(inputs) - len(self.masked)
        query, value, key = (
            x.astype(np.float64) for x in (inputs[0], inputs[1], inputs[count - 1])
        )
        masks = dict(zip(self.masked, (m != 0 for m in inputs[count:]), strict=True))
        scale = packed["scale"] if self.scaled else np.float64(1)
        if self.score == "dot":
            scores = scale * matmul(query, key.swapaxes(1, 2))
        else:
            pairs = query[:, :, None] + key[:, None]
            if self.score == "additive":
                scores = (scale * np.tanh(pairs)).sum(axis=-1)
            else:
                scores = packed["score_weight"] * np.tanh(scale * pairs).sum(axis=-1)
        dtype = inputs[0].dtype
        weights = attention_weights(
            scores, allowed_keys(masks, (1,), scores, self.causal), "lowered", self.mask_in_float32
        )
        y = matmul(weights, value)
        if 0 in masks:
            y = np.where(masks[0][..., None], y, 0.0)
        made = (y, weights) if self.return_scores else (y,)
        return tuple(a.astype(dtype) for a in made), {}


@dataclass(frozen=True)
class MultiHeadAttention(Operation):
    """Attention with several heads, each with its own projections.

    ::

        y = sum over heads of  softmax(Q K^T / sqrt(key_units)) V  O  + output_bias
        Q = q query_kernel + query_bias,  K = k key_kernel + key_bias,  V = v value_kernel + ...

    Inputs are queries ``(batch, queries, query_features)``, values ``(batch, steps,
    value_features)`` and, if they are not the values themselves, keys ``(batch, steps,
    key_features)``; then the masks. The output is ``(batch, queries, units)``. Sums are computed in
    float64.

    Parameters
    ----------
    heads, key_units, value_units, units
        Number of heads, and sizes per head and of the output.
    masked
        The inputs that have a mask: 0 for the queries, 1 for the values, 2 for the keys. A masked
        step neither attends nor gets weight. 3 is the attention mask ``(batch, queries, steps)``:
        the steps that each query may attend to.
    causal
        A query attends to no step later than its own.
    window
        A query attends only to steps less than this distance away; 0 for no limit.
    fully_masked
        The weights of a query without an allowed key: ``"uniform"``, ``"zero"``, or ``"lowered"``:
        the softmax of the scores minus 1e9. ``"additive"`` is the same, but if an attention mask is
        the only mask, its values are numbers: ``1e9 * (1 - mask)`` is subtracted from the scores.
    mask_in_float32
        1e9 is subtracted in float32; else in float64.
    return_scores
        Return the weights ``(batch, heads, queries, steps)`` as a second output.

    Weights
    -------
    ``query_kernel`` (query_features, heads, key_units), ``key_kernel``, ``value_kernel``,
    ``output_kernel`` (heads, value_units, units); with ``use_bias`` a bias for each.

    References
    ----------
    Vaswani et al.: Attention Is All You Need, NIPS 2017.
    """

    kind: ClassVar[str] = "multi_head_attention"
    is_stricter: ClassVar[bool] = True
    uses_matrix_products: ClassVar[bool] = True

    query_features: int
    value_features: int
    key_features: int
    heads: int
    key_units: int
    value_units: int
    units: int
    use_bias: bool = True
    masked: tuple[int, ...] = ()
    causal: bool = False
    window: int = 0
    fully_masked: str = "lowered"
    mask_in_float32: bool = True
    return_scores: bool = False

    def __post_init__(self) -> None:
        if self.fully_masked not in _FULLY_MASKED:
            known = ", ".join(_FULLY_MASKED)
            raise FormatError(
                f"fully_masked: expected one of {known}, got {self.fully_masked!r:.40}"
            )
        for name in ("query_features", "value_features", "key_features", "heads", "key_units",
                     "value_units", "units"):  # fmt: skip
            positive(name, getattr(self, name))
        _check_masked(self.masked)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        keys, values = (self.heads, self.key_units), (self.heads, self.value_units)
        shapes: dict[str, tuple[int, ...]] = {
            "query_kernel": (self.query_features, *keys),
            "key_kernel": (self.key_features, *keys),
            "value_kernel": (self.value_features, *values),
            "output_kernel": (*values, self.units),
        }
        if self.use_bias:
            shapes |= {"query_bias": keys, "key_bias": keys, "value_bias": values,
                       "output_bias": (self.units,)}  # fmt: skip
        return shapes

    @property
    def mask_input_count(self) -> int:
        return 3

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return self.masked

    def with_masks(self, which: Collection[int]) -> Operation:
        return replace(self, masked=tuple(sorted({*self.masked, *which})))

    def weight_role(self, name: str) -> str | None:
        return "projection" if name.endswith("kernel") else "projection_bias"

    def scratch_size(self, shapes: Sequence[tuple[int, ...]]) -> int:
        (batch, queries, _), (_, keys, _) = shapes[:2]
        units = max(self.key_units, self.value_units)
        return batch * self.heads * max(queries * keys, max(queries, keys) * units)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        tensors, _ = _split(inputs, self.masked)
        query, value, key = tensors[0], tensors[1], tensors[-1]
        sizes = {"query": (query, self.query_features), "value": (value, self.value_features),
                 "key": (key, self.key_features)}  # fmt: skip
        for name, (shape, features) in sizes.items():
            if shape[2] != features:
                raise FormatError(
                    f"expected {features} features of the {name}, got {format_shape(shape)}"
                )
        made: tuple[Shape, ...] = ((*query[:2], self.units),)
        if not self.return_scores:
            return made
        return (*made, (query[0], self.heads, query[1], value[1]))

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        by_position = self.causal or self.window > 0
        return _axes(shapes, self.masked, by_position, self.return_scores, heads=True)

    def output_names(self) -> tuple[str, ...]:
        return ("", "scores") if self.return_scores else ("",)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        (batch, queries, _), (_, keys, _) = shapes[:2]
        sizes = {name: math.prod(shape) for name, shape in self.weight_shapes().items()}
        projections = queries * (sizes["query_kernel"] + sizes["output_kernel"])
        projections += keys * (sizes["key_kernel"] + sizes["value_kernel"])
        scores = queries * keys * self.heads * (self.key_units + self.value_units)
        return batch * (projections + scores)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Reshape kernels to matrices and biases to vectors, in float64."""
        packed = {}
        for name, array in weights.items():
            rows = (array.shape[0],) if name.endswith("kernel") else ()
            rows = (self.heads * self.value_units,) if name == "output_kernel" else rows
            packed[name] = array.reshape(*rows, -1).astype(np.float64)
        return packed

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.infer_shapes([x.shape for x in inputs])
        count = len(inputs) - len(self.masked)
        given = {"query": inputs[0], "key": inputs[count - 1], "value": inputs[1]}
        masks = dict(zip(self.masked, (m != 0 for m in inputs[count:]), strict=True))
        heads = {}
        for name, x in given.items():
            y = matmul(x.astype(np.float64), packed[f"{name}_kernel"])
            if self.use_bias:
                y = y + packed[f"{name}_bias"]
            heads[name] = y.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)
        scores = matmul(heads["query"], heads["key"].swapaxes(2, 3)) / np.sqrt(self.key_units)
        alone = self.masked == (ATTENTION_MASK,) and not self.causal and not self.window
        if self.fully_masked == "additive" and alone:
            scores, masks = add_mask(scores, inputs[-1][:, None], self.mask_in_float32), {}
        allowed = allowed_keys(masks, (0, 1, 2, ATTENTION_MASK), scores, self.causal, self.window)
        allowed = None if allowed is None else allowed[:, None]
        weights = attention_weights(scores, allowed, self.fully_masked, self.mask_in_float32)
        y = matmul(weights, heads["value"]).swapaxes(1, 2).reshape(*inputs[0].shape[:2], -1)
        y = matmul(y, packed["output_kernel"])
        if self.use_bias:
            y = y + packed["output_bias"]
        made = (y, weights) if self.return_scores else (y,)
        return tuple(a.astype(inputs[0].dtype) for a in made), {}
