"""What the classes of quantized modules are, and what is said of the models that they become.

The weights of modules that ``torch.ao.quantization.quantize_dynamic`` made are dequantized
(``torch/packed_parameters.py`` in files, ``torch/dequantizing.py`` in memory). Others are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["ADVICE", "DYNAMIC", "FLOAT_MODULES", "is_quantized", "modules_of", "notes_on",
           "static_reason", "with_differences"]  # fmt: skip

_HOMES = ("torch.ao.nn.quantized.", "torch.nn.quantized.")
DYNAMIC = tuple(f"{home}dynamic.modules." for home in _HOMES)
# The class after ``dynamic.modules.``, and the float module that it stands for.
FLOAT_MODULES = {
    "linear.Linear": "torch.nn.modules.linear.Linear",
    **{
        f"rnn.{name}": f"torch.nn.modules.rnn.{name}"
        for name in ("LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")
    },
}
_QUANTIZED = re.compile(
    r"(?!.*\.FloatFunctional$)"  # whose functions do not round
    r"torch\.(ao\.)?(nn\.(intrinsic\.)?(quantized|qat)\.|quantization\.(fake_quantize|observer)\.)"
)
ADVICE = "convert the float module, as it was before quantization"

# What other classes do, by a part of their names.
_OTHERS = {
    ".embedding_ops.": "is a quantized embedding, whose codes are not read",
    ".observer.": "measures activations, in a model that was prepared for static quantization",
    ".fake_quantize.": "rounds values to those of codes, as in training for quantization",
    ".qat.": "rounds values to those of codes, as in training for quantization",
}
_STATIC = (
    "is quantized in another way than by quantize_dynamic, one that rounds activations by scales "
    "that were measured, and npylstm computes in floats"
)


def is_quantized(cls: str) -> bool:
    """Whether a class is torch's and computes with rounded values, or prepares that."""
    return _QUANTIZED.match(cls) is not None


def static_reason(name: str, cls: str = "") -> str:
    """Return the reason against a module that is quantized in another way."""
    what = f" ({cls})" if cls else ""
    why = next((text for part, text in _OTHERS.items() if part in cls), _STATIC)
    return f"{name:.200}{what}: {why}; {ADVICE}"


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the modules of tensors, each once."""
    return [*dict.fromkeys(name.rpartition(".")[0] or "model" for name in names)]


def notes_on(codes: Sequence[str], halves: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on the modules with 8-bit codes, and one on those with 16-bit weights."""
    if codes:
        yield (
            f"int8 weights of {', '.join(codes)} are multiplied by their scales; torch also rounds "
            "the inputs of such a module to 8 bits in every call, and the converted model does not"
        )
    if halves:
        yield (
            f"float16 weights of {', '.join(halves)} are widened to float32; torch computes with "
            "them in float32, too"
        )


def with_differences(provenance: Mapping[str, Any], codes: Sequence[str]) -> dict[str, Any]:
    """Return a provenance that states what the model does not compute of a quantized one.

    Parameters
    ----------
    provenance
        That of the model with dequantized weights.
    codes
        The modules with 8-bit codes; without any, nothing changes.
    """
    if not codes:
        return dict(provenance)
    sentence = (
        f"{', '.join(codes)} compute with dequantized int8 weights; the quantized model also "
        "rounds the inputs of such modules to 8 bits, so its outputs differ, often by 1 to 3 "
        "percent of the largest"
    )
    proof = provenance["proof"]
    return {
        **provenance,
        "proof": "stated" if proof == "proven" else proof,
        "stated": [*provenance.get("stated", ()), sentence],
        "dequantized": [*codes],
    }
