"""Attention in traced programs, written as products, softmax and masks."""

from __future__ import annotations

import math
from typing import Any

from npylstm.ops.arithmetic import Arithmetic, Where
from npylstm.ops.indexing import Repeat, Trilu
from npylstm.ops.products import MatMul
from npylstm.ops.shaping import Full
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops
from npylstm_converters.torch.builder import Ref
from npylstm_converters.torch.calls import Call

__all__ = ["scaled_dot_product"]


def scaled_dot_product(
    call: Call, query: Any, key: Any, value: Any, mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Ref:  # fmt: skip
    """Return ``softmax(query @ key.T * scale + mask) @ value``."""
    if dropout_p:
        raise Refusal("drops values in inference: its result is random")
    size = query.traced[-1]
    if scale is None and not isinstance(size, int):
        raise Refusal(f"of a free number of features {size}: state scale")
    q, k, v = call.tensor(query), call.tensor(key), call.tensor(value)
    if enable_gqa and q.traced[-3] != k.traced[-3]:
        times = q.traced[-3] // k.traced[-3]
        heads = call.rank(key) - 3
        k, v = (call.add(Repeat(heads, times), x, part="heads") for x in (k, v))
    axes = [*range(call.rank(key))]
    k = array_ops.transpose(call, k, [*axes[:-2], axes[-1], axes[-2]])
    scores = call.add(MatMul(), q, k, part="scores")
    factor = 1 / math.sqrt(size) if scale is None else float(scale)
    scores = call.add(Arithmetic("multiply", factor), scores, part="scaled")
    if is_causal:
        sizes = tuple((0, a) for a in range(len(call.shape(scores))))
        ones = call.add(Full(sizes, 1.0), scores, part="ones")
        seen = call.add(Trilu(), ones, part="seen")
        scores = call.add(Where(None, -math.inf), seen, scores, part="masked")
    if mask is not None and call.is_bool(mask):
        scores = call.add(Where(None, -math.inf), call.tensor(mask), scores, part="masked")
    elif mask is not None:
        scores = call.add(Arithmetic("add"), scores, call.tensor(mask), part="masked")
    weights = array_ops.softmax()(call, scores)
    return call.add(MatMul(), weights, v)
