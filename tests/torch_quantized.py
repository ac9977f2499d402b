"""Quantized modules of PyTorch, and what they compute."""

from __future__ import annotations

import collections
import copy
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import torch
from torch import nn

quantization = torch.ao.quantization
KINDS = {nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell}


class Tagger(nn.Module):
    """A tagger as in tutorials: embedding, recurrent layers, a head for every step."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, layers: int = 1, **options: Any) -> None:
        super().__init__()
        self.emb = nn.Embedding(9, 3)
        self.rnn = kind(3, 4, layers, batch_first=True, **options)
        self.fc = nn.Linear(8 if options.get("bidirectional") else 4, 5)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.fc(self.rnn(self.emb(ids))[0])


def dequantized_spec(*source: Any, **options: Any) -> Any:
    """Convert with dequantized weights, as whoever converts has to say."""
    return nc.from_torch(*source, dequantize=True, **options)


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for tensor in module.parameters():
        tensor.data.uniform_(-0.6, 0.6, generator=generator)
    return module.eval()


def quantized(module: nn.Module, dtype: torch.dtype = torch.qint8, channels: bool = False) -> Any:
    if not channels:
        return quantization.quantize_dynamic(module, KINDS, dtype=dtype)
    return quantization.quantize_dynamic(
        module, {nn.Linear: quantization.per_channel_dynamic_qconfig}
    )


def plain_weights(module: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors with torch's own dequantized weights, by the names of the float module."""
    if hasattr(module, "get_weight"):
        found = {**module.get_weight(), **module.get_bias()}
    elif hasattr(module, "weight") and callable(module.weight):
        found = {"weight": module.weight(), "bias": module.bias()}
    else:
        own = dict(module.named_parameters(prefix[:-1], recurse=False))
        for name, child in module._modules.items():
            own |= plain_weights(child, f"{prefix}{name}.")
        return own
    return {
        f"{prefix}{k}": v.dequantize() if v.is_quantized else v.detach()
        for k, v in found.items() if v is not None
    }  # fmt: skip


def float_module(made: Any, original: nn.Module) -> nn.Module:
    plain = copy.deepcopy(original)
    plain.load_state_dict(plain_weights(made))
    return plain


def saved(module: Any, whole: bool, path: Path) -> Path:
    torch.save(module if whole else module.state_dict(), path)
    return path


IDS = np.random.default_rng(5).integers(0, 9, (3, 6))


class Cells(nn.Module):
    """Cells of all kinds, a part that is shared, and a list beside the submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(3, 4), nn.GRUCell(4, 4)
        self.rnn = nn.RNNCell(4, 4, nonlinearity="relu")
        self.first = self.second = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        h, _ = self.lstm(x)
        return self.second(torch.tanh(self.first(self.rnn(self.gru(h)))))


class Damaged:
    """A quantized tensor of tens, with another quantizer than torch makes."""

    def __init__(self, *quantizer: Any) -> None:
        self.quantizer = quantizer

    def __reduce__(self) -> Any:
        storage = torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8).storage()
        rest = (False, collections.OrderedDict())
        return torch._utils._rebuild_qtensor, (storage, 0, (4, 3), (3, 1), self.quantizer, *rest)


TENSOR, CHANNELS = torch.per_tensor_affine, torch.per_channel_affine
