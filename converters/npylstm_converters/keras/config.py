"""A layer's config, read key by key, and the Keras that wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.activations import resolve

__all__ = ["WEIGHT_SHAPERS", "Config", "Translation", "Writer", "dtype_name", "without_weights"]

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
            number = float(value) if type(value) in (int, float) else nan
        except OverflowError:
            number = nan
        if not isfinite(number):
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
        return resolve(value, self.writer.major)

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
