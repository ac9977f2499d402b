"""The options of torch's own classes in a pickled module, in the language of ``--layers``.

A state_dict does not hold them, but the attributes of a pickled module do. Attributes that are not
named here do not change what the class computes in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.torch.pickled_modules import PickledModule

__all__ = ["CLASSES", "LOSS", "SEQUENTIAL", "Options", "options_of"]

_PACKAGE = "torch.nn.modules."
LOSS = "is a loss, which the network does not apply"
SEQUENTIAL = f"{_PACKAGE}container.Sequential"
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """What a class of torch and its attributes determine.

    Attributes
    ----------
    kind
        The class in ``torch.nn``; empty for a class that is not torch's.
    known
        Options of the chain language.
    word
        For a module without tensors: the word of the chain that it is.
    refused
        Why the module is not supported; empty if it is.
    """

    kind: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    word: Step | None = None
    refused: str = ""


def options_of(module: PickledModule) -> Options:
    """Return what the file says about a module."""
    if not module.cls.startswith(_PACKAGE):
        return Options()
    kind = module.short
    if module.cls == SEQUENTIAL:  # without submodules
        return Options(kind, word=Step("identity"))
    if module.cls.startswith(f"{_PACKAGE}loss."):
        return Options(kind, refused=LOSS)
    try:
        if kind in _LAYERS:
            return Options(kind, _LAYERS[kind](module.attributes))
        if kind in _WORDS:
            return Options(kind, word=_WORDS[kind](module.attributes))
    except Refusal as reason:
        return Options(kind, refused=str(reason))
    return Options(kind, refused="is not supported here")


def _expect(attributes: Attributes, **values: Any) -> None:
    """Raise Refusal for another value of an attribute; an older torch may not have it."""
    for name, value in values.items():
        found = attributes.get(name, value)
        if found != value:
            raise Refusal(f"has {name}={found!r:.60}, only {value!r} is supported")


def _number(attributes: Attributes, name: str, default: float | None = None) -> str:
    value = attributes.get(name, default)
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refusal(f"has {name}={value!r:.60}, expected a number")
    return repr(value)


def _numbers(*names: str, **expected: Any) -> Callable[[Attributes], dict[str, str]]:
    """Return a function that reads numbers, and accepts one value of other attributes."""

    def read(attributes: Attributes) -> dict[str, str]:
        _expect(attributes, **expected)
        return {name: _number(attributes, name) for name in names}

    return read


def _recurrent(attributes: Attributes) -> dict[str, str]:
    first = attributes.get("batch_first", False)
    if not isinstance(first, bool):
        raise Refusal(f"has batch_first={first!r:.60}, expected True or False")
    return {"batch_first": str(first), **_nonlinearity(attributes)}


def _nonlinearity(attributes: Attributes) -> dict[str, str]:
    """Return the activation of an RNN: older versions have it in the mode only."""
    mode = attributes.get("mode")
    found = attributes.get("nonlinearity")
    if found is None and isinstance(mode, str) and mode.startswith("RNN_"):
        found = mode.removeprefix("RNN_").lower()
    if found not in (None, "tanh", "relu"):
        raise Refusal(f"has nonlinearity={found!r:.60}, expected tanh or relu")
    return {} if found is None else {"nonlinearity": found}


def _conv(attributes: Attributes) -> dict[str, str]:
    _expect(attributes, padding_mode="zeros", transposed=False)
    padding = attributes.get("padding")
    stated = {"padding": padding} if padding in ("same", "valid") else {}
    names = ("stride", *(() if stated else ("padding",)), "dilation", "groups")
    return {name: _number(attributes, name) for name in names} | stated


_LAYERS: dict[str, Callable[[Attributes], dict[str, str]]] = {
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
    "LSTMCell": _numbers(), "GRUCell": _numbers(), "RNNCell": _nonlinearity,
    "Linear": _numbers(), "PReLU": _numbers(), "Conv1d": _conv,
    "Embedding": _numbers(max_norm=None),
    "BatchNorm1d": _numbers("eps", track_running_stats=True),
    "LayerNorm": _numbers("eps"),
}  # fmt: skip


def _word(word: str, *names: str, **expected: Any) -> Callable[[Attributes], Step]:
    """Return a function that gives a word with numbers as options."""

    def read(attributes: Attributes) -> Step:
        _expect(attributes, **expected)
        return Step(word, (), {name: _number(attributes, name) for name in names})

    return read


def _gelu(attributes: Attributes) -> Step:
    approximate = attributes.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Refusal(f"has approximate={approximate!r:.60}")
    return Step("gelu" if approximate == "none" else "gelu_tanh")


def _pool(word: str, **expected: Any) -> Callable[[Attributes], Step]:
    def read(attributes: Attributes) -> Step:
        _expect(attributes, ceil_mode=False, **expected)
        size = _number(attributes, "kernel_size")
        stride = attributes.get("stride")
        options = {"stride": size if stride is None else _number(attributes, "stride")}
        return Step(word, (size,), options | {"padding": _number(attributes, "padding", 0)})

    return read


_DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")
_WORDS: dict[str, Callable[[Attributes], Step]] = {
    **dict.fromkeys(_DROPOUTS, _word("dropout")),
    "Identity": _word("identity"),
    "Flatten": _word("flatten", start_dim=1, end_dim=-1),
    "ReLU": _word("relu"), "Tanh": _word("tanh"), "Sigmoid": _word("sigmoid"), "GELU": _gelu,
    "SiLU": _word("silu"), "SELU": _word("selu"), "Mish": _word("mish"),
    "Softsign": _word("softsign"), "Softplus": _word("softplus", beta=1, threshold=20),
    "LogSigmoid": _word("log_sigmoid"), "Hardsigmoid": _word("hardsigmoid"),
    "Hardswish": _word("hardswish"), "ReLU6": _word("relu6"),
    "Hardtanh": _word("hard_tanh", min_val=-1, max_val=1),
    "ELU": _word("elu", "alpha"), "LeakyReLU": _word("leaky_relu", "negative_slope"),
    "Softmax": _word("softmax", "dim"), "LogSoftmax": _word("log_softmax", "dim"),
    "MaxPool1d": _pool("max_pool", dilation=1, return_indices=False),
    "AvgPool1d": _pool("avg_pool", count_include_pad=True),
}  # fmt: skip
CLASSES = (*_LAYERS, *_WORDS, "Sequential")
