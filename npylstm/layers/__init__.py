"""The table of layer kinds: one row each. A kind's own file says everything about it.

Files are imported when a kind is first asked for: a process that runs one model starts faster.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from npylstm.errors import FormatError
from npylstm.layers.base import Layer

if TYPE_CHECKING:
    from npylstm.layers.arithmetic import Arithmetic, Constant, Dot, Elementwise, MatMul, Reduce
    from npylstm.layers.array_ops import (
        Concatenate,
        Expand,
        Flip,
        Full,
        Pad,
        Repeat,
        Select,
        SizeOf,
        Slice,
        Stack,
        Transpose,
        View,
    )
    from npylstm.layers.attention import Attention, MultiHeadAttention
    from npylstm.layers.bidirectional import Bidirectional
    from npylstm.layers.convolution import Conv1D, Pool1D
    from npylstm.layers.dense import Dense
    from npylstm.layers.embedding import Embedding
    from npylstm.layers.external import External
    from npylstm.layers.gru import GRU
    from npylstm.layers.lstm import LSTM
    from npylstm.layers.masking import MaskedMean, MaskedMerge, MaskedSoftmax, Masking
    from npylstm.layers.normalization import BatchNormalization, LayerNormalization
    from npylstm.layers.pointwise import ActivationLayer, Identity, PReLU, Rescaling
    from npylstm.layers.shaping import Flatten, Permute, RepeatVector, Reshape
    from npylstm.layers.simple_rnn import SimpleRNN
    from npylstm.layers.time_distributed import TimeDistributed
    from npylstm.layers.unit_normalization import UnitNormalization

# Kind: file and class.
_TABLE = {
    # Recurrent.
    "lstm": "lstm.LSTM",
    "gru": "gru.GRU",
    "simple_rnn": "simple_rnn.SimpleRNN",
    "bidirectional": "bidirectional.Bidirectional",
    # With weights of other kinds.
    "dense": "dense.Dense",
    "embedding": "embedding.Embedding",
    "masking": "masking.Masking",
    "conv1d": "convolution.Conv1D",
    "batch_normalization": "normalization.BatchNormalization",
    "layer_normalization": "normalization.LayerNormalization",
    "unit_normalization": "unit_normalization.UnitNormalization",
    "prelu": "pointwise.PReLU",
    "constant": "arithmetic.Constant",
    # Element by element, and along axes.
    "activation": "pointwise.ActivationLayer",
    "identity": "pointwise.Identity",
    "rescaling": "pointwise.Rescaling",
    "elementwise": "arithmetic.Elementwise",
    "arithmetic": "arithmetic.Arithmetic",
    "reduce": "arithmetic.Reduce",
    "matmul": "arithmetic.MatMul",
    "dot": "arithmetic.Dot",
    "attention": "attention.Attention",
    "multi_head_attention": "attention.MultiHeadAttention",
    "masked_mean": "masking.MaskedMean",
    "masked_merge": "masking.MaskedMerge",
    "masked_softmax": "masking.MaskedSoftmax",
    "pool1d": "convolution.Pool1D",
    "time_distributed": "time_distributed.TimeDistributed",
    "external": "external.External",
    # Moving elements about: as Keras says it, and as array operations.
    "flatten": "shaping.Flatten",
    "reshape": "shaping.Reshape",
    "permute": "shaping.Permute",
    "repeat_vector": "shaping.RepeatVector",
    "select": "array_ops.Select",
    "slice": "array_ops.Slice",
    "size_of": "array_ops.SizeOf",
    "transpose": "array_ops.Transpose",
    "flip": "array_ops.Flip",
    "view": "array_ops.View",
    "expand": "array_ops.Expand",
    "concatenate": "array_ops.Concatenate",
    "stack": "array_ops.Stack",
    "full": "array_ops.Full",
    "repeat": "array_ops.Repeat",
    "pad": "array_ops.Pad",
}
_CLASSES = {place.partition(".")[2]: place for place in _TABLE.values()}


def _class(place: str) -> type[Layer]:
    module, _, name = place.partition(".")
    layer: type[Layer] = getattr(importlib.import_module(f"npylstm.layers.{module}"), name)
    return layer


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _class(_CLASSES[name])


class _Kinds(Mapping[str, type[Layer]]):
    """The classes by kind."""

    def __getitem__(self, kind: str) -> type[Layer]:
        return _class(_TABLE[kind])

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLE)

    def __len__(self) -> int:
        return len(_TABLE)


KINDS = _Kinds()

__all__ = [
    "GRU", "KINDS", "LSTM", "ActivationLayer", "Arithmetic", "Attention", "BatchNormalization",
    "Bidirectional", "Concatenate", "Constant", "Conv1D", "Dense", "Dot", "Elementwise",
    "Embedding", "Expand", "External", "Flatten", "Flip", "Full", "Identity", "Layer",
    "LayerNormalization", "MaskedMean", "MaskedMerge", "MaskedSoftmax", "Masking", "MatMul",
    "MultiHeadAttention", "PReLU", "Pad", "Permute", "Pool1D", "Reduce", "Repeat", "RepeatVector",
    "Rescaling", "Reshape", "Select", "SimpleRNN", "SizeOf", "Slice", "Stack", "TimeDistributed",
    "Transpose", "UnitNormalization", "View", "layer_from_json",
]  # fmt: skip


def layer_from_json(kind: object, config: object) -> Layer:
    """Make a layer from the two values that a file holds for it.

    Raises
    ------
    FormatError
        If the kind is unknown or the config does not fit it.
    """
    if not isinstance(kind, str) or kind not in _TABLE:
        raise FormatError(f"unknown kind {kind!r:.80}, expected one of {', '.join(KINDS)}")
    if not isinstance(config, Mapping):
        raise FormatError(f"config: expected an object, got {config!r:.80}")
    checked: Mapping[str, Any] = config
    return KINDS[kind].from_json(checked)
