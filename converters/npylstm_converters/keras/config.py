"""A layer's config, read key by key, with the formulas of the Keras that wrote it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.activations import LINEAR, Activation
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm_converters.errors import Refusal

__all__ = [
    "ACTIVATIONS", "ACTIVATION_LAYERS", "WEIGHT_SHAPERS", "Config", "Translation", "Writer",
    "activation_from_layer", "dtype_name", "find_writer", "without_weights",
]  # fmt: skip

Translation = tuple[Operation, dict[str, Array]]

WEIGHT_SHAPERS = ("initializer", "regularizer", "constraint")  # used in training only


@dataclass(frozen=True)
class Writer:
    """The Keras that wrote a model: it determines defaults and formulas.

    ``version`` is the stored one (``"2.2.4-tf"``), or inferred from the config (``"1"``).
    """

    framework: str
    version: str
    evidence: str
    tfjs: bool = False  # TensorFlow.js runs it, with the formulas of Keras 2

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9A-Za-z.+_-]{1,60})?", self.version):
            raise FormatError(f"keras_version: expected such as '2.15.0', got {self.version!r:.80}")

    @property
    def major(self) -> int:
        """The major version of Keras whose formulas apply."""
        return 2 if self.tfjs else int(self.version.split(".")[0])

    @property
    def recurrent_default(self) -> str | None:
        """The default recurrent activation of LSTM; None if the version does not determine it."""
        if self.tfjs:
            return "hard_sigmoid"
        _, _, rest = self.version.partition(".")
        digits = re.match(r"[0-9]{1,4}", rest)
        minor = int(digits[0]) if digits else 0
        if self.version.startswith("2.2.4-tf"):
            return None  # TF 1.13 to 2.1 write this version and have either default
        return "hard_sigmoid" if (self.major, minor) < (2, 3) else "sigmoid"

    @property
    def softmax_zeroes_blocked(self) -> bool:
        """Whether the layer Softmax returns zeros where all is masked: since Keras 3.10."""
        return self._numbers >= (3, 10) and not self.tfjs

    @property
    def heads_take_masks(self) -> bool:
        """Whether MultiHeadAttention removes the masks of its inputs: since Keras 3.7."""
        return self._numbers >= (3, 7) and not self.tfjs

    @property
    def _numbers(self) -> tuple[int, ...]:
        if self.version == "3":  # only the major version is known: assume the latest
            return (3, 99)
        return tuple(int(d) for d in re.findall(r"[0-9]{1,4}", self.version)[:2])

    @property
    def zero_output_in_pairs(self) -> bool:
        """Whether Bidirectional sets ``zero_output_for_mask`` on layers that return sequences.

        All versions of TensorFlow's Keras and Keras 3 do; the separate Keras never did.
        """
        apart = self.framework == "Keras" and self._numbers < (2, 4)
        return not self.tfjs and not apart


def find_writer(document: Any, version: str | None) -> Writer:
    """Return the Keras that wrote the model: the stored version, else inferred from the config."""
    top = document if isinstance(document, Mapping) else {}
    own = top.get("keras_version")
    if isinstance(own, str):
        # The config determines the formulas; the weights may have been saved later.
        version = own
    if version is not None:
        name = "tf.keras" if version.endswith("-tf") else "Keras"
        return Writer(name, version, f"it says keras_version {version!r}")
    text = json.dumps(document)
    if '"DTypePolicy"' in text or '"__keras_tensor__"' in text or '"batch_shape"' in text:
        return Writer("Keras", "3", "no version; dtype policies and batch_shape are Keras 3's")
    if '"inner_activation"' in text or ('"output_dim"' in text and _has_output_dim(document)):
        return Writer("Keras", "1", "no version; output_dim and inner_activation are Keras 1's")
    return Writer("Keras", "2", "no version; the config's keys are Keras 2's")


def _has_output_dim(value: Any) -> bool:
    """Whether a layer has ``output_dim``, as in Keras 1; Embedding still has it."""
    if isinstance(value, Mapping):
        config = value.get("config")
        embeds = value.get("class_name") == "Embedding"
        if not embeds and isinstance(config, Mapping) and "output_dim" in config:
            return True
        value = list(value.values())
    try:
        return isinstance(value, list) and any(map(_has_output_dim, value))
    except RecursionError:
        return False


class Config:
    """A layer's config; each key that is read is removed."""

    def __init__(self, raw: Mapping[str, Any], writer: Writer) -> None:
        self._left = dict(raw)
        self.writer = writer
        double = dtype_name(raw.get("dtype")) == "float64"
        self.dtype = np.dtype("float64" if double else "float32")  # of the layer's computation

    def take(self, *names: str, default: Any = ...) -> Any:
        """Remove and return a value whose key has one of these names, depending on the version.

        Raises
        ------
        Refusal
            If no such key exists and there is no default.
        """
        found = [self._left.pop(n) for n in names if n in self._left]
        if not found and default is ...:
            raise Refusal(f"config has no {names[0]!r}")
        return found[0] if found else default

    def size(self, *names: str) -> int:
        """Remove and return a positive integer."""
        value = self.take(*names)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Refusal(f"{names[0]}: expected a positive integer, got {value!r}")
        return value

    def flag(self, *names: str, default: bool = False) -> bool:
        """Remove and return a boolean."""
        value = self.take(*names, default=default)
        if value not in (True, False, None):
            raise Refusal(f"{names[0]}: expected true or false, got {value!r}")
        return bool(value)

    def number(self, name: str, default: float) -> float:
        """Remove and return a finite number."""
        value = self.take(name, default=default)
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.nan
        if not math.isfinite(number):
            raise Refusal(f"{name}: expected a number, got {str(value)[:60]!r}")
        return number

    def numbers(self, name: str, default: Any = ...) -> Array | None:
        """Remove and return a finite number or nested lists of them; None if absent."""
        value = self.take(name, default=default)
        if value is None:
            return None
        try:
            array = np.asarray(value, np.float64)
        except (ValueError, TypeError, OverflowError):
            array = np.array(np.nan)
        if isinstance(value, (bool, str)) or not np.isfinite(array).all():
            raise Refusal(f"{name}: expected numbers, got {value!r:.60}")
        return array

    def axis(self, *names: str, default: int = -1) -> int:
        """Remove and return an axis."""
        (axis, *others) = self.axes(*names, default=default)
        if others:
            raise Refusal(f"{names[0]}: expected one axis, got {[axis, *others]}")
        return axis

    def axes(self, *names: str, default: int = -1) -> tuple[int, ...]:
        """Remove and return one or more axes."""
        value = self.take(*names, default=default)
        axes = value if isinstance(value, list) else [value]
        if not axes or any(type(a) is not int for a in axes):
            raise Refusal(f"{names[0]}: expected an integer, got {value!r:.60}")
        return tuple(axes)

    def sizes(self, name: str) -> tuple[int, ...]:
        """Remove and return a list of integers."""
        value = self.take(name)
        if type(value) is int:
            value = [value]
        if not isinstance(value, list) or any(type(v) is not int for v in value):
            raise Refusal(f"{name}: expected a list of integers, got {value!r}")
        return tuple(value)

    def activation(self, *names: str, default: Any = None) -> Activation:
        """Remove and return an activation, with the formula of the writer's version."""
        return self.resolve(self.take(*names, default=default))

    def resolve(self, value: Any) -> Activation:
        """Return the activation of a serialised value, with the formula of the writer's version."""
        return _resolve(value, self.writer.major)

    def neutral(self, *names: str) -> None:
        """Remove keys that do not change the result of inference."""
        for name in names:
            self._left.pop(name, None)

    def rest(self) -> dict[str, Any]:
        """Remove and return all remaining keys."""
        left, self._left = self._left, {}
        return left

    def finish(self) -> None:
        """Raise Refusal if unknown keys remain."""
        if self._left:
            left = ", ".join(f"{k}={v!r:.60}" for k, v in sorted(self._left.items()))
            raise Refusal(f"config not understood: {left}")


def without_weights(function: Callable[[Config], Operation]) -> Callable[..., Translation]:
    """Return a translator from a function that needs no arrays."""
    return lambda config, _: (function(config), {})


def dtype_name(dtype: Any) -> Any:
    """Return the name of a dtype that is a name or a serialised policy."""
    if isinstance(dtype, Mapping):
        config = dtype.get("config")
        return config.get("name") if isinstance(config, Mapping) else None
    return dtype


# Activations by name, with the formula of the version that wrote the file.
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
ACTIVATIONS = (*_BY_NAME, "hard_sigmoid")


def _resolve(value: Any, major: int) -> Activation:
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
            return _resolve(config, major)
        if isinstance(config, Mapping) and class_name in ACTIVATION_LAYERS:
            return activation_from_layer(class_name, config)
        raise Refusal(f"activation {class_name!r} is not supported")
    raise Refusal(f"activation {value!r} is not supported")


# Activation layers: the activation, its parameter for each of the layer's arguments, and the
# argument's default.
ACTIVATION_LAYERS: dict[str, tuple[str, dict[str, tuple[str, float | None]]]] = {
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
    name, arguments = ACTIVATION_LAYERS[class_name]
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
