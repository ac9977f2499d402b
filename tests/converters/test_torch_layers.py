"""Layers around recurrent ones, and activations, against PyTorch itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from backends import BACKENDS
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch.nn.utils import parametrizations
from torch_parity import FLOAT64_TOLERANCE, assert_parity, build, normal, predict, run, whole

from npylstm import Model

# PyTorch's own, about how it runs what it runs; conversion must say nothing all the same.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


# ---------------------------------------------------------------- layers around

CHANNELS = (normal(2, 4, 11), normal(5, 4, 14), normal(1, 4, 20))  # (batch, channels, steps)
STEPS = (normal(2, 5, 4), normal(6, 9, 4), normal(1, 7, 4))  # (batch, steps, features)
ROWS = (normal(2, 4), normal(7, 4), normal(1, 4))  # (batch, features)


def prelu_per_feature() -> nn.Module:
    return nn.PReLU(4)


def weight_normed_lstm() -> nn.Module:
    rnn = nn.LSTM(4, 5, batch_first=True)
    parametrizations.weight_norm(rnn, "weight_hh_l0")
    return parametrizations.weight_norm(rnn, "weight_ih_l0")


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "BatchNorm1d of rows": (lambda: nn.BatchNorm1d(4), ROWS),
    "BatchNorm1d of channels": (lambda: nn.BatchNorm1d(4, eps=0.1, momentum=None), CHANNELS),
    "BatchNorm1d without affine": (lambda: nn.BatchNorm1d(4, affine=False), CHANNELS),
    "LayerNorm": (lambda: nn.LayerNorm(4), STEPS),
    "LayerNorm of rows": (lambda: nn.LayerNorm(4, eps=0.1), ROWS),
    "LayerNorm without affine": (lambda: nn.LayerNorm(4, elementwise_affine=False), STEPS),
    "LayerNorm without bias": (lambda: nn.LayerNorm(4, bias=False), STEPS),
    "LayerNorm over two axes": (lambda: nn.LayerNorm((5, 4)), (normal(2, 5, 4), normal(7, 5, 4))),
    "Conv1d": (lambda: nn.Conv1d(4, 5, 3), CHANNELS),
    "Conv1d of stride 2": (lambda: nn.Conv1d(4, 5, 3, stride=2, padding=1), CHANNELS),
    "Conv1d without bias": (lambda: nn.Conv1d(4, 5, 2, bias=False, padding=3), CHANNELS),
    "Conv1d dilated": (lambda: nn.Conv1d(4, 5, 3, dilation=3, padding=2), CHANNELS),
    "Conv1d in groups": (lambda: nn.Conv1d(4, 6, 3, groups=2), CHANNELS),
    "Conv1d depthwise": (lambda: nn.Conv1d(4, 8, 3, groups=4, stride=3), CHANNELS),
    "Conv1d same": (lambda: nn.Conv1d(4, 5, 3, padding="same"), CHANNELS),
    "Conv1d same, even": (lambda: nn.Conv1d(4, 5, 4, padding="same"), CHANNELS),
    "Conv1d same, dilated": (lambda: nn.Conv1d(4, 5, 4, padding="same", dilation=3), CHANNELS),
    "Conv1d valid": (lambda: nn.Conv1d(4, 5, 4, padding="valid"), CHANNELS),
    "Conv1d pointwise": (lambda: nn.Conv1d(4, 2, 1), CHANNELS),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), CHANNELS),
    "MaxPool1d with overlap": (lambda: nn.MaxPool1d(4, stride=2, padding=2), CHANNELS),
    "MaxPool1d dilated": (lambda: nn.MaxPool1d(3, stride=1, dilation=2), CHANNELS),
    "AvgPool1d": (lambda: nn.AvgPool1d(3), CHANNELS),
    "AvgPool1d padded": (lambda: nn.AvgPool1d(3, stride=2, padding=1), CHANNELS),
    "AvgPool1d, padding not counted": (lambda: nn.AvgPool1d(3, 2, 1, count_include_pad=False), CHANNELS),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(1), CHANNELS),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(1), CHANNELS),
    "Linear": (lambda: nn.Linear(4, 3), STEPS),
    "Linear without bias": (lambda: nn.Linear(4, 3, bias=False), ROWS),
    "Linear over four axes": (lambda: nn.Linear(4, 3), (normal(2, 3, 5, 4), normal(5, 3, 7, 4))),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 3)), (normal(2, 5, 4), normal(7, 5, 4))),
    "Unflatten": (lambda: nn.Unflatten(2, (2, 2)), STEPS),
    "PReLU": (nn.PReLU, STEPS),
    "PReLU of rows": (prelu_per_feature, ROWS),
    "PReLU of channels": (prelu_per_feature, CHANNELS),
    "Dropout1d": (lambda: nn.Sequential(nn.Dropout1d(), nn.AlphaDropout(), nn.FeatureAlphaDropout(), nn.Conv1d(4, 2, 1)), CHANNELS),
    "weight_norm of a Linear": (lambda: parametrizations.weight_norm(nn.Linear(4, 3)), STEPS),
    "weight_norm of a Linear, one axis": (lambda: parametrizations.weight_norm(nn.Linear(4, 3), dim=1), STEPS),
    "weight_norm of an LSTM": (weight_normed_lstm, STEPS),
    "weight_norm of a Conv1d": (lambda: parametrizations.weight_norm(nn.Conv1d(4, 3, 3)), CHANNELS),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(4, 3)), STEPS),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.one_in(2)
def test_layers(name: str) -> None:
    make, examples = LAYERS[name]
    # What has no weights takes its type from a layer before it.
    before = nn.PReLU()
    assert_parity(nn.Sequential(before, make()), *examples)


@pytest.mark.parametrize("kind", ["LSTM", "Linear"])
def test_the_older_weight_norm(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if kind == "LSTM":
            module: nn.Module = nn.LSTM(4, 5, batch_first=True)
            nn.utils.weight_norm(module, "weight_hh_l0")
            nn.utils.weight_norm(module, "weight_ih_l0")
        else:
            module = nn.utils.weight_norm(nn.Linear(4, 3))
    assert_parity(module, *STEPS)


@pytest.mark.parametrize("padding", [None, 0, 3, -1])
def test_embeddings(padding: int | None) -> None:
    """The row of padding is a row like others: its values are zeros because nobody trains it."""
    module = build(
        lambda self, ids: self.rnn(self.words(ids))[0],
        words=nn.Embedding(9, 4, padding_idx=padding), rnn=nn.LSTM(4, 5, batch_first=True),
    )  # fmt: skip
    assert_parity(module, whole(2, 5, below=9), whole(6, 9, below=9), whole(1, 30, below=9))
    module = module.float()
    module.words.reset_parameters()
    assert_parity(module, whole(2, 5, below=9), whole(6, 9, below=9), seed=None)


def test_a_network_of_many_layers() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        x = self.pool(F.relu(self.norm(self.conv(x.transpose(1, 2))))).permute(0, 2, 1)
        y, (h, _) = self.rnn(x)
        attention = torch.softmax(self.score(torch.tanh(y)).squeeze(-1), dim=1)
        context = torch.bmm(attention.unsqueeze(1), y).squeeze(1)
        return self.out(self.last(torch.cat([context, h[-2], h[-1]], dim=1)))

    module = build(
        forward, conv=nn.Conv1d(4, 6, 3, padding=1), norm=nn.BatchNorm1d(6), pool=nn.MaxPool1d(2),
        rnn=nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, dropout=0.2), score=nn.Linear(10, 1),
        last=nn.LayerNorm(20), out=nn.Sequential(nn.Linear(20, 8), nn.GELU(), nn.Linear(8, 3)),
    )  # fmt: skip
    assert_parity(module, normal(2, 8, 4), normal(6, 13, 4), normal(1, 30, 4))


# ---------------------------------------------------------------- activations

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    **{f"F.{name}": getattr(F, name) for name in (
        "relu", "relu6", "elu", "selu", "celu", "leaky_relu", "gelu", "silu", "mish", "hardsigmoid",
        "hardswish", "hardtanh", "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink",
        "logsigmoid", "glu",
    )},
    **{f"torch.{name}": getattr(torch, name) for name in ("relu", "tanh", "sigmoid", "selu", "celu")},
    **{f"nn.{name}": getattr(nn, name)() for name in (
        "ReLU", "ReLU6", "ELU", "SELU", "CELU", "LeakyReLU", "GELU", "SiLU", "Mish", "Hardsigmoid",
        "Hardswish", "Hardtanh", "Softplus", "Softsign", "Tanhshrink", "Softshrink", "Hardshrink",
        "LogSigmoid", "Tanh", "Sigmoid", "GLU",
    )},
    **{f"nn.{name} in place": getattr(nn, name)(inplace=True) for name in (
        "ReLU", "ELU", "SELU", "SiLU", "Hardtanh",
    )},
    "nn.ELU(0.3)": nn.ELU(0.3),
    "nn.CELU(0.3)": nn.CELU(0.3),
    "nn.LeakyReLU(0.2)": nn.LeakyReLU(0.2),
    "F.leaky_relu(-0.2)": lambda x: F.leaky_relu(x, -0.2),
    "nn.GELU(tanh)": nn.GELU("tanh"),
    "nn.Hardtanh(-2, 0.5)": nn.Hardtanh(-2.0, 0.5),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0.0, 6.0),
    "nn.Softplus(2)": nn.Softplus(2),
    "nn.Softplus(0.3)": nn.Softplus(0.3),
    "nn.Softplus(1, 30)": nn.Softplus(1, 30),
    "nn.Softshrink(1.5)": nn.Softshrink(1.5),
    "nn.Hardshrink(1.5)": nn.Hardshrink(1.5),
    "F.prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "softmax(-1)": lambda x: F.softmax(x, -1),
    "softmax(1)": lambda x: torch.softmax(x, 1),
    "log_softmax(-1)": lambda x: F.log_softmax(x, -1),
    "log_softmax(1)": lambda x: x.log_softmax(1),
    "nn.Softmax(2)": nn.Softmax(2),
    "nn.LogSoftmax(1)": nn.LogSoftmax(1),
    "glu(1)": lambda x: F.glu(x[:, :4], 1),
    "clamp": lambda x: x.clamp(-0.5, 2),
    "clamp(min)": lambda x: torch.clamp(x, min=0.3),
    "clamp(max)": lambda x: x.clamp(max=0.3),
    "x.sigmoid()": lambda x: x.sigmoid(),
    "F.tanh": torch.tanh,
}  # fmt: skip


def activated(activation: Callable[[Any], Any]) -> nn.Module:
    """The activation of the input itself; a weight of zeros gives the module its type."""
    parts = {"activation": activation} if isinstance(activation, nn.Module) else {}
    function = activation if not parts else None

    def forward(self: Any, x: torch.Tensor) -> Any:
        return (function or self.activation)(x + self.zero)

    return build(forward, zero=nn.Parameter(torch.zeros(6)), **parts)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.one_in(3)
def test_activations(name: str) -> None:
    """Over all of their range, and where their formulas change."""
    module = activated(ACTIVATIONS[name])
    kinks = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 6, 20, 1e-6])
    kinks = torch.cat([kinks, -kinks]).reshape(1, 3, 6)
    wide = torch.linspace(-40, 40, 3 * 40 * 6).reshape(3, 40, 6)
    examples = [normal(2, 5, 6, scale=3), torch.cat([kinks, kinks], 1), wide]
    types = ("float64",) if name.startswith(("nn.", "torch.")) else None
    assert_parity(module, *examples, seed=None, types=types)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if not n.startswith("nn.") or "(" in n])
def test_activations_of_nan_and_infinities(name: str) -> None:
    """In float64: in float32 PyTorch's own GELU of infinity is nan or not, as the array is long."""
    module = activated(ACTIVATIONS[name]).double()
    odd = torch.full((3, 4, 6), 0.5, dtype=torch.float64)
    odd[0, 1, 1], odd[1, 2, 2], odd[2, 3, 3] = torch.nan, torch.inf, -torch.inf
    spec = nc.from_torch(module, odd)
    (expected,) = run(module, odd)
    for backend in BACKENDS:
        (y,) = predict(Model(spec, backend), odd)
        np.testing.assert_allclose(y, expected, rtol=FLOAT64_TOLERANCE, atol=0, equal_nan=True)
