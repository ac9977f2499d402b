"""Class names that TensorFlow 1.13 to 2.2 wrote, and Keras' names of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm_converters.keras.graph import is_custom

__all__ = ["with_names_of_today"]

# TensorFlow had two versions of some classes for a while, and wrote the name of the version.
_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",  # differs in training only
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    "TextVectorizationV1": "TextVectorization",
    "TextVectorizationV2": "TextVectorization",
    "NormalizationV1": "Normalization",
}
# An activation that was passed as a function of TensorFlow has the name of that function.
_ACTIVATIONS = {"softmax_v2": "softmax", "log_softmax_v2": "log_softmax"}


def with_names_of_today(value: Any) -> Any:
    """Return a model config with Keras' names of today for TensorFlow's early classes.

    Custom classes keep their names.
    """
    if isinstance(value, list):
        return [with_names_of_today(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    changed = {key: with_names_of_today(entry) for key, entry in value.items()}
    name = changed.get("class_name")
    if isinstance(name, str) and name in _CLASSES and not is_custom(value):
        changed["class_name"] = _CLASSES[name]
    for key in ("activation", "recurrent_activation"):
        if isinstance(changed.get(key), str):
            changed[key] = _ACTIVATIONS.get(changed[key], changed[key])
    return changed
