"""Float modules in place of dynamically quantized ones, in a copy of a module in memory.

Imports torch when called.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from npylstm import UnsupportedError
from npylstm_converters.toolkit.runners import one_line
from npylstm_converters.torch.quantized import (
    ADVICE,
    DYNAMIC,
    FLOAT_MODULES,
    is_quantized,
    static_reason,
)

__all__ = ["Dequantized", "dequantized"]


class Dequantized(NamedTuple):
    """A module, and the paths of its parts whose weights were 8-bit codes, or of 16 bits."""

    module: Any
    codes: Sequence[str] = ()
    halves: Sequence[str] = ()


def dequantized(module: Any) -> Dequantized:
    """Return a copy of a module with float modules in place of dynamically quantized ones.

    A module without any is returned as it is. The copy shares all other tensors with it.

    Raises
    ------
    UnsupportedError
        Lists the modules that are quantized in another way, or that have hooks; or if the module
        cannot be copied.
    """
    import torch

    found: dict[str, Any] = {}
    inside: set[int] = set()
    reasons: list[str] = []
    for path, part in module.named_modules():
        classes = [f"{c.__module__}.{c.__qualname__}" for c in type(part).__mro__]
        if id(part) in inside or not any(map(is_quantized, classes)):
            continue
        inside |= {id(inner) for inner in part.modules()}
        label = path or "the module"
        if not any(_kind(cls) in FLOAT_MODULES for cls in classes):
            reasons.append(static_reason(label, classes[0]))
        elif _kind(classes[0]) not in FLOAT_MODULES:
            reasons.append(
                f"{label} ({classes[0]}): is a class of its own, which inherits from a quantized "
                f"module and may compute something else; {ADVICE}"
            )
        elif part._forward_hooks or part._forward_pre_hooks:
            reasons.append(f"{label}: is quantized, and has a hook on its forward: remove it first")
        else:
            found[path] = part
    if reasons:
        raise UnsupportedError(reasons)
    if not found:
        return Dequantized(module)
    memo = {id(t): t for t in (*module.parameters(), *module.buffers())}
    codes: list[str] = []
    halves: list[str] = []
    try:
        with torch.no_grad():
            for path, part in found.items():
                weights = _weights_of(part)
                quantized = any(weight.is_quantized for weight in weights.values())
                (codes if quantized else halves).append(path or "model")
                memo[id(part)] = _float_module(part, weights)
            made = copy.deepcopy(module, memo)
    except Exception as error:  # an attribute of the user's class may raise anything
        raise UnsupportedError(
            f"{type(module).__name__}: holds quantized modules, and cannot be copied to exchange "
            f"them: {one_line(error, 200)}"
        ) from None
    return Dequantized(made, codes, halves)


def _kind(cls: str) -> str:
    return cls.partition(".modules.")[2] if cls.startswith(DYNAMIC) else ""


def _weights_of(part: Any) -> dict[str, Any]:
    """Return weights and biases of a dynamically quantized module, as its methods give them."""
    several = hasattr(part, "get_weight")
    found = (
        part.get_weight() | part.get_bias()
        if several
        else {"weight": part.weight(), "bias": part.bias()}
    )
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _float_module(part: Any, weights: dict[str, Any]) -> Any:
    """Return the float module with the dequantized weights."""
    import torch

    name = type(part).__name__
    options: dict[str, Any] = {"bias": any(key.startswith("bias") for key in weights)}
    if name == "Linear":
        sizes = reversed(weights["weight"].shape)
    else:
        sizes = (part.input_size, part.hidden_size)
    if name in ("LSTM", "GRU"):
        options |= {k: getattr(part, k) for k in ("num_layers", "batch_first", "bidirectional")}
    elif name == "RNNCell":
        options["nonlinearity"] = part.nonlinearity
    # Without initial numbers: torch's generator of random numbers stays as it is.
    made = getattr(torch.nn, name)(*sizes, **options, device="meta").to_empty(device="cpu")
    state = {
        key: value.dequantize() if value.is_quantized else value.detach()
        for key, value in weights.items()
    }  # fmt: skip
    made.load_state_dict(state)
    return made.train(part.training)
