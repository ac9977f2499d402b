"""The registry of operations: one row each; the operation itself is in its own file.

A file is imported when a model first needs it, so that a process starts faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from npylstm.errors import FormatError
from npylstm.loading import module
from npylstm.ops.base import Operation

__all__ = ["OPERATIONS", "operation_from_json"]

# Kind: file and class.
_TABLE = {
    # Recurrent.
    "lstm": "cells.LSTM",
    "gru": "cells.GRU",
    "simple_rnn": "cells.SimpleRNN",
    "bidirectional": "bidirectional.Bidirectional",
    # Others with weights.
    "dense": "dense.Dense",
    "embedding": "dense.Embedding",
    "conv1d": "convolution.Conv1D",
    "convolution": "convolution_nd.Convolution",
    "convolution_transpose": "convolution_nd.ConvolutionTranspose",
    "batch_normalization": "normalization.BatchNormalization",
    "layer_normalization": "normalization.LayerNormalization",
    "rms_normalization": "normalization.RMSNormalization",
    "group_normalization": "group_normalization.GroupNormalization",
    "prelu": "pointwise.PReLU",
    "attention": "attention.Attention",
    "multi_head_attention": "attention.MultiHeadAttention",
    "constant": "arithmetic.Constant",
    # Element by element.
    "activation": "pointwise.ActivationLayer",
    "identity": "pointwise.Identity",
    "rescaling": "pointwise.Rescaling",
    "integers": "integers.Integers",
    "arithmetic": "arithmetic.Arithmetic",
    "where": "arithmetic.Where",
    # Along axes.
    "reduce": "arithmetic.Reduce",
    "arg_reduce": "sorting.ArgReduce",
    "top_k": "sorting.TopK",
    "cumulative": "sorting.Cumulative",
    "matmul": "products.MatMul",
    "einsum": "products.Einsum",
    "dot": "products.Dot",
    "resize": "resizing.Resize",
    "pool1d": "convolution.Pool1D",
    "pool": "pooling.Pool",
    "adaptive_pool": "pooling.AdaptivePool",
    "unit_normalization": "normalization.UnitNormalization",
    "local_response_normalization": "group_normalization.LocalResponseNormalization",
    # With masks.
    "masking": "masking.Masking",
    "sequence_mask": "masking.SequenceMask",
    "masked_mean": "masking.MaskedMean",
    "masked_merge": "masking.MaskedMerge",
    "masked_softmax": "masking.MaskedSoftmax",
    # Wrappers of other operations and of functions.
    "time_distributed": "time_distributed.TimeDistributed",
    "external": "external.External",
    "scan": "scan.Scan",
    # Rearrange elements.
    "transpose": "shaping.Transpose",
    "reshape": "shaping.Reshape",
    "expand": "shaping.Expand",
    "concatenate": "shaping.Concatenate",
    "stack": "shaping.Stack",
    "full": "shaping.Full",
    "select": "indexing.Select",
    "slice": "indexing.Slice",
    "size_of": "indexing.SizeOf",
    "flip": "indexing.Flip",
    "reverse_sequence": "resizing.ReverseSequence",
    "repeat": "indexing.Repeat",
    "pad": "indexing.Pad",
    "trilu": "indexing.Trilu",
    "take": "gathering.Take",
    "take_along_axis": "gathering.TakeAlongAxis",
    "scatter_elements": "gathering.ScatterElements",
    "gather_nd": "gathering_nd.GatherND",
    "scatter_nd": "gathering_nd.ScatterND",
    "sliding_windows": "pooling.SlidingWindows",
    "one_hot": "gathering.OneHot",
}


class _Operations(Mapping[str, type[Operation]]):
    """The operation classes by kind."""

    def __getitem__(self, kind: str) -> type[Operation]:
        family, _, name = _TABLE[kind].partition(".")
        operation: type[Operation] = getattr(module(f"ops.{family}"), name)
        return operation

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLE)

    def __len__(self) -> int:
        return len(_TABLE)


OPERATIONS = _Operations()


def operation_from_json(kind: object, config: object) -> Operation:
    """Return the operation for the kind and config that a file holds.

    Raises
    ------
    FormatError
        If the kind is unknown or the config does not fit it.
    """
    if not isinstance(kind, str) or kind not in _TABLE:
        raise FormatError(f"unknown kind {kind!r:.80}, expected one of {', '.join(_TABLE)}")
    if not isinstance(config, Mapping):
        raise FormatError(f"config: expected an object, got {config!r:.80}")
    checked: Mapping[str, Any] = config
    return OPERATIONS[kind].from_json(checked)
