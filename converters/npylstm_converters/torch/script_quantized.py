"""Dynamically quantized modules in TorchScript: their packed parameters, and what reads them.

The parameters are objects of C++, which an interpreter of the graph cannot give to torch.export.
They become plain tensors before the trace, and their operations those of float modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from npylstm import UnsupportedError
from npylstm_converters.torch.quantized import ADVICE

__all__ = ["OPERATIONS", "PackedParameters", "packed_parameters", "refuse_others"]

_LINEAR = "__torch__.torch.classes.quantized.LinearPackedParamsBase"
_LAYER = "__torch__.torch.classes.rnn.CellParamsBase"


class PackedParameters(NamedTuple):
    """The tensors of one object with packed parameters.

    Attributes
    ----------
    module
        The path of the module that they belong to.
    tensors
        Dequantized tensors, by the names under which the float module is to hold them.
    is_codes
        Whether the weights are 8-bit codes.
    """

    module: str
    tensors: dict[str, Any]
    is_codes: bool


def packed_parameters(name: str, value: Any) -> PackedParameters | None:
    """Return the packed parameters in an attribute of a module; None if it holds none.

    Parameters
    ----------
    name
        The dotted name of the attribute.
    value
        The attribute.
    """
    import torch

    if not isinstance(value, torch.ScriptObject):
        return None
    kind = value._type().qualified_name()
    path, _, leaf = name.rpartition(".")
    if kind == _LINEAR:
        pairs = [_pair(value)]
        match leaf:
            case "_packed_params":
                path, suffixes = path.removesuffix("_packed_params").removesuffix("."), [""]
            case "_packed_weight_ih" | "_packed_weight_hh":
                suffixes = [leaf.removeprefix("_packed_weight")]
            case _:  # a constant without a name
                path, suffixes = name, [""]
    elif kind == _LAYER:
        state = value.__getstate__()[0]
        if state[0] not in ("quantized_dynamic", "quantized_fp16"):
            return None
        path, suffixes = path if leaf == "param" else name, ["_ih", "_hh"]
        pairs = [_pair(packed) for packed in state[4]]
    else:
        return None
    tensors: dict[str, Any] = {}
    dot = f"{path}." if path else ""
    for suffix, (weight, bias) in zip(suffixes, pairs, strict=True):
        tensors[f"{dot}weight{suffix}"] = weight.dequantize()
        if bias is not None:
            tensors[f"{dot}bias{suffix}"] = bias.detach()
    module = path.partition("_all_weight_values.")[0].removesuffix(".") or "model"
    return PackedParameters(module, tensors, any(weight.is_quantized for weight, _ in pairs))


def _pair(packed: Any) -> tuple[Any, Any]:
    """Return weight and bias of packed parameters of a linear operation."""
    weight, bias = packed.__getstate__()[0]
    return weight, bias


# In place of an object, these functions receive its tensors in order: a weight and its bias, twice
# for a recurrent layer.


def _linear(x: Any, packed: Sequence[Any], *_: Any) -> Any:
    import torch

    return torch.nn.functional.linear(x, *packed)


def _layers(name: str) -> Callable[..., Any]:
    def run(x: Any, state: Any, layers: Sequence[Any], has_biases: Any, *options: Any) -> Any:
        import torch

        if not isinstance(has_biases, bool):  # sizes of batches are the second argument
            raise UnsupportedError(
                f"aten::quantized_{name} of TorchScript reads packed sequences, which is not "
                f"supported; {ADVICE}"
            )
        biased = all(len(tensors) == 4 for tensors in layers)
        flat = [t for tensors in layers for t in (*tensors[::2], *tensors[1::2])] if biased else [
            t for tensors in layers for t in tensors
        ]  # fmt: skip
        # Behind the sizes: the type and the kind of the quantized operation.
        return getattr(torch, name)(x, state, flat, biased, *options[:5])

    return run


def _cell(name: str) -> Callable[..., Any]:
    def run(x: Any, state: Any, ih: Sequence[Any], hh: Sequence[Any], *_: Any) -> Any:
        import torch

        # The two biases at the end are not those that torch adds: these are packed.
        return getattr(torch, name)(x, state, ih[0], hh[0], *ih[1:], *hh[1:])

    return run


OPERATIONS: dict[str, Callable[..., Any]] = {
    "quantized::linear_dynamic": _linear,
    "quantized::linear_dynamic_fp16": _linear,
    "aten::quantized_lstm": _layers("lstm"),
    "aten::quantized_gru": _layers("gru"),
    "quantized::quantized_lstm_cell_dynamic": _cell("lstm_cell"),
    "quantized::quantized_gru_cell_dynamic": _cell("gru_cell"),
    "quantized::quantized_rnn_tanh_cell_dynamic": _cell("rnn_tanh_cell"),
    "quantized::quantized_rnn_relu_cell_dynamic": _cell("rnn_relu_cell"),
}


def refuse_others(kinds: Iterable[str]) -> None:
    """Raise UnsupportedError if operations compute with quantized values in another way.

    Parameters
    ----------
    kinds
        The operations of TorchScript, ``aten::linear``.
    """
    others = [
        kind for kind in dict.fromkeys(kinds)
        if kind.startswith(("quantized::", "aten::quantize", "aten::fake_quantize"))
        and kind not in OPERATIONS
    ]  # fmt: skip
    if others:
        raise UnsupportedError(
            f"TorchScript computes with quantized values in {', '.join(others)}: only modules of "
            f"quantize_dynamic are supported; {ADVICE}"
        )
