"""The table of layer kinds: one row each. A kind's own file says everything about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm.errors import FormatError
from npylstm.layers.base import Layer
from npylstm.layers.dense import Dense
from npylstm.layers.lstm import LSTM
from npylstm.layers.pointwise import ActivationLayer, Identity
from npylstm.layers.shaping import Flatten, Permute, RepeatVector, Reshape

__all__ = [
    "KINDS",
    "LSTM",
    "ActivationLayer",
    "Dense",
    "Flatten",
    "Identity",
    "Layer",
    "Permute",
    "RepeatVector",
    "Reshape",
    "layer_from_json",
]

KINDS: dict[str, type[Layer]] = {
    "lstm": LSTM,
    "dense": Dense,
    "activation": ActivationLayer,
    "identity": Identity,
    "flatten": Flatten,
    "reshape": Reshape,
    "permute": Permute,
    "repeat_vector": RepeatVector,
}


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
