"""Activation names of Keras, resolved to the formula of the version that wrote the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from npylstm.activations import LINEAR, Activation
from npylstm_converters.errors import Refusal

__all__ = ["LAYERS", "NAMES", "activation_from_layer", "resolve"]

_SAME_NAME = (
    "linear", "tanh", "sigmoid", "relu", "elu", "selu", "softplus", "softsign", "exponential",
    "softmax", "gelu", "silu", "mish", "log_softmax", "hard_silu", "hard_tanh", "celu",
    "log_sigmoid", "tanh_shrink", "soft_shrink", "hard_shrink", "squareplus", "sparse_plus",
    "sparse_sigmoid",
)  # fmt: skip

_BY_NAME: dict[str, Activation] = {
    **{name: Activation.of(name) for name in _SAME_NAME},
    "swish": Activation.of("silu"),
    "hard_swish": Activation.of("hard_silu"),
    "gelu_new": Activation.of("gelu_tanh"),  # its name in TensorFlow.js
    "relu6": Activation.of("relu", max_value=6.0),
    # As a function: slope 0.2. The layer LeakyReLU has its own slope in its config.
    "leaky_relu": Activation.of("relu", negative_slope=0.2),
}
NAMES = (*_BY_NAME, "hard_sigmoid")


def resolve(value: Any, major: int) -> Activation:
    """Return the activation that a config names.

    Parameters
    ----------
    value
        A name, None, or a serialised function or layer.
    major
        Major version of the Keras that wrote the config. ``hard_sigmoid`` of Keras 1 and 2 differs
        from that of Keras 3.

    Raises
    ------
    Refusal
        If npylstm does not have it.
    """
    if value is None:
        return LINEAR
    if isinstance(value, str):
        if value == "hard_sigmoid":
            return Activation.of("hard_sigmoid_sixth" if major >= 3 else "hard_sigmoid_fifth")
        if value in _BY_NAME:
            return _BY_NAME[value]
        raise Refusal(f"activation {value!r} is not supported")
    if isinstance(value, Mapping) and isinstance(value.get("class_name"), str):
        config, class_name = value.get("config"), value["class_name"]
        if class_name == "function" and isinstance(config, str):
            custom = value.get("registered_name") not in (None, "function", config)
            if custom or value.get("module", "builtins") != "builtins":
                raise Refusal(f"activation {config!r} is a function of the user's own")
            return resolve(config, major)
        if isinstance(config, Mapping) and class_name in LAYERS:
            return activation_from_layer(class_name, config)
        raise Refusal(f"activation {class_name!r} is not supported")
    raise Refusal(f"activation {value!r} is not supported")


# Activation layers: the activation, its parameter for each of the layer's arguments, and the
# argument's default.
LAYERS: dict[str, tuple[str, dict[str, tuple[str, float | None]]]] = {
    # Keras 1 and 2 name it alpha, Keras 3 negative_slope.
    "LeakyReLU": (
        "relu",
        {"alpha": ("negative_slope", 0.3), "negative_slope": ("negative_slope", 0.3)},
    ),
    "ReLU": (
        "relu",
        {
            "max_value": ("max_value", None),
            "negative_slope": ("negative_slope", 0.0),
            "threshold": ("threshold", 0.0),
        },
    ),
    "ELU": ("elu", {"alpha": ("alpha", 1.0)}),
    "ThresholdedReLU": ("thresholded_relu", {"theta": ("theta", 1.0)}),
    "Softmax": ("softmax", {"axis": ("axis", -1)}),
}  # fmt: skip


def activation_from_layer(class_name: str, config: Mapping[str, Any]) -> Activation:
    """Return the activation of a layer such as LeakyReLU.

    Raises
    ------
    Refusal
        If an argument is not a number.
    """
    name, arguments = LAYERS[class_name]
    params: dict[str, float] = {}
    for argument, (param, default) in arguments.items():
        value = config.get(argument, default)
        if argument not in config and param in params:
            continue  # the same parameter under the name of another version
        # Standalone Keras 2 writes numbers that were arrays as {"type": "ndarray", "value": ...}.
        if isinstance(value, Mapping) and isinstance(value.get("value"), (int, float)):
            value = value["value"]
        if value is None and param == "max_value":
            value = math.inf
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Refusal(f"{class_name}: {argument}={value!r} is not supported")
        params[param] = value
    return Activation.of(name, **params)
