"""The table of layer kinds: one row each. A kind's own file says everything about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm.errors import FormatError
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
from npylstm.layers.base import Layer
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

_LAYERS: tuple[type[Layer], ...] = (
    # Recurrent.
    LSTM, GRU, SimpleRNN, Bidirectional,
    # With weights of other kinds.
    Dense, Embedding, Masking, Conv1D, BatchNormalization, LayerNormalization,
    UnitNormalization, PReLU, Constant,
    # Element by element, and along axes.
    ActivationLayer, Identity, Rescaling, Elementwise, Arithmetic, Reduce, MatMul, Dot, Attention,
    MultiHeadAttention, MaskedMean, MaskedMerge, MaskedSoftmax, Pool1D, TimeDistributed,
    External,
    # Moving elements about: as Keras says it, and as array operations.
    Flatten, Reshape, Permute, RepeatVector,
    Select, Slice, SizeOf, Transpose, Flip, View, Expand, Concatenate, Stack, Full, Repeat, Pad,
)  # fmt: skip

KINDS: dict[str, type[Layer]] = {layer.kind: layer for layer in _LAYERS}

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
    cls = KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise FormatError(f"unknown kind {kind!r:.80}, expected one of {', '.join(KINDS)}")
    if not isinstance(config, Mapping):
        raise FormatError(f"config: expected an object, got {config!r:.80}")
    checked: Mapping[str, Any] = config
    return cls.from_json(checked)
