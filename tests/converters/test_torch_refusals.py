"""Operations that cannot be converted, or would give wrong numbers or mix samples, are refused with every reason."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch_refusals import build, converted, expected, lstm, normal, outputs, reasons

from npylstm import Model, NpylstmError

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------- operations that are not supported


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fold = nn.RReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.fft.rfft(x, dim=1).abs()
        y = torch.lgamma(y)
        return self.fold(y.transpose(1, 2))


class Ranked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectrum = Spectrum()
        self.out = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ranks = torch.digamma(x)
        best = self.out(ranks).kthvalue(2, dim=-1)[0]
        return best, self.spectrum(x)


def test_every_operation_with_its_module_and_line() -> None:
    """Also those that read what another refused one makes."""
    found = reasons(Ranked(), normal(2, 6, 3))
    file = re.escape(Path(__file__).name)
    for operation, path, line in [
        ("digamma", "forward", r"ranks = torch\.digamma\(x\)"),
        ("kthvalue", "forward", r"best = self\.out\(ranks\)\.kthvalue\(2, dim=-1\)\[0\]"),
        ("fft_rfft", r"spectrum \(Spectrum\)", r"y = torch\.fft\.rfft\(x, dim=1\)\.abs\(\)"),
        ("lgamma", r"spectrum \(Spectrum\)", r"y = torch\.lgamma\(y\)"),
        ("rrelu", r"spectrum\.fold \(RReLU\)", r"return self\.fold\(y\.transpose\(1, 2\)\)"),
    ]:  # fmt: skip
        pattern = rf"{operation}\S* .*is not supported.*\b{path}, {file}:\d+: {line}"
        assert any(re.search(pattern, reason) for reason in found), f"{pattern} in {found}"


def test_the_line_of_an_operation() -> None:
    (reason,) = reasons(Gamma(), normal(2, 6, 3))
    lines = Path(__file__).read_text().splitlines()
    number = next(k for k, line in enumerate(lines, 1) if line.strip().startswith("running ="))
    assert reason.endswith(f"forward, {Path(__file__).name}:{number}: running = torch.lgamma(x)")


class Gamma(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        running = torch.lgamma(x)
        return running * 2


def test_one_operation_used_twice_is_told_twice() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            a = torch.kthvalue(x, 1)[0]
            b = torch.kthvalue(x, 2)[0]
            return a, b

    found = reasons(Twice(), normal(2, 6, 3))
    assert [bool(re.search(r"kthvalue\(x, [12]\)", r)) for r in found] == [True, True]


def test_a_transformer_with_its_steps_first() -> None:
    """The first axis is taken for the batch where no recurrent layer tells: attention mixes it."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=False)
    found = reasons(nn.Sequential(nn.Linear(3, 4), layer), normal(2, 6, 3))
    assert any("scaled_dot_product_attention" in r and "1.self_attn (MultiheadAttention)" in r for r in found), found  # fmt: skip


OPERATIONS: dict[str, Callable[..., Any]] = {
    "kthvalue": lambda self, x: x.kthvalue(2, 1)[0],
    "mode": lambda self, x: x.mode(-1)[0],
    "lgamma": lambda self, x: x.lgamma(),
    "renorm": lambda self, x: x.renorm(2, 2, 1.0),
    "fft_rfft": lambda self, x: torch.fft.rfft(x, dim=1).abs(),
    "randn_like": lambda self, x: x + torch.randn_like(x),
    "randn": lambda self, x: self.rnn(x, (torch.randn(1, x.size(0), 6), torch.randn(1, x.size(0), 6))),
    "rand": lambda self, x: x + torch.rand(3),
    "bernoulli": lambda self, x: x * torch.bernoulli(torch.sigmoid(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str) -> None:
    module = build(OPERATIONS[name], rnn=lstm())
    found = reasons(module, normal(2, 6, 3))
    assert any(re.match(rf"{name}\b.* is not supported", r) for r in found), found


EINSUM = build(lambda self, x: torch.einsum("bti,bsi->bts", x, x))


def test_einsum_is_right_or_refused(backend: str) -> None:
    x = normal(3, 7, 3)
    spec = converted(EINSUM, normal(2, 6, 3), "einsum")
    if spec is not None:
        np.testing.assert_allclose(outputs(Model(spec, backend), x)[0], expected(EINSUM, x)[0], rtol=1e-5)  # fmt: skip


# ---------------------------------------------------------------- what would come out wrong


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: F.dropout(self.rnn(x)[0], 0.5),
        lambda self, x: F.dropout(self.rnn(x)[0], 0.5, training=True),
        lambda self, x: F.alpha_dropout(self.rnn(x)[0], 0.5, training=True),
        lambda self, x: F.dropout1d(self.rnn(x)[0], 0.5, training=True),
    ],
)
def test_dropout_that_is_on_in_inference(forward: Callable[..., Any]) -> None:
    """As in Monte Carlo dropout: what comes out is random, so no number would be PyTorch's."""
    found = reasons(build(forward, rnn=lstm()), normal(2, 6, 3))
    assert any("dropout" in r for r in found), found


def test_dropout_that_drops_nothing(backend: str) -> None:
    module = build(lambda self, x: F.dropout(self.rnn(x)[0], 0.0, training=True), rnn=lstm())
    spec = converted(module, normal(2, 6, 3), "dropout")
    if spec is not None:
        x = normal(3, 4, 3)
        np.testing.assert_allclose(outputs(Model(spec, backend), x)[0], expected(module, x)[0], atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("running", [True, False])
def test_normalising_by_the_batch_itself(running: bool) -> None:
    norm = nn.BatchNorm1d(3, track_running_stats=running)

    def forward(self: Any, x: torch.Tensor) -> Any:
        x = x.transpose(1, 2)
        if running:
            statistics = self.norm.running_mean.clone(), self.norm.running_var.clone()
            return F.batch_norm(x, *statistics, training=True)
        return self.norm(x)

    found = reasons(build(forward, norm=norm), normal(2, 6, 3))
    assert any("batch_norm" in r and "batch itself" in r for r in found), found


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.rnn(x.long().float())[0],
        lambda self, x: self.rnn(x.int().to(x.dtype))[0],
        lambda self, x: x.to(torch.int64) * 0.5,
        lambda self, x: self.rnn(x.bool().float())[0],
        lambda self, x: self.rnn(x.half().float())[0],
        lambda self, x: x.double().sin().float(),
        lambda self, x: x.sum(1, dtype=torch.float64).float(),
        lambda self, x: F.softmax(x, 1, dtype=torch.float16).float(),
    ],
)
def test_changes_of_type_that_change_numbers(forward: Callable[..., Any], backend: str) -> None:
    """Refused, or done as PyTorch does it: cut towards zero, rounded to the type."""
    module = build(forward, rnn=lstm())
    x = 3 * normal(4, 6, 3)
    spec = converted(module, normal(2, 6, 3), "computes in|not supported|type|cast")
    if spec is not None:
        (y,), (theirs,) = outputs(Model(spec, backend), x), expected(module, x)
        np.testing.assert_allclose(y, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("threshold", [0.5, 4.0, 10.0])
def test_low_thresholds_of_softplus(beta: float, threshold: float, backend: str) -> None:
    """Beyond ``beta * x > threshold`` PyTorch gives x itself: refused, or done."""
    module = build(lambda self, x: F.softplus(x + self.zero, beta, threshold), zero=nn.Parameter(torch.zeros(3)))  # fmt: skip
    x = torch.linspace(-3, 40, 90).reshape(1, 30, 3)
    spec = converted(module, normal(2, 6, 3), "softplus")
    if spec is not None:
        (y,), (theirs,) = outputs(Model(spec, backend), x), expected(module, x)
        np.testing.assert_allclose(y, theirs, rtol=1e-6, atol=1e-6)


def _by_length(self: Any, x: torch.Tensor) -> Any:
    y = self.rnn(x)[0]
    return y[:, -1] if x.size(1) > 4 else y[:, 0]


def _by_batch(self: Any, x: torch.Tensor) -> Any:
    y = self.rnn(x)[0]
    return y if x.size(0) > 2 else 1 - y


def _by_both(self: Any, x: torch.Tensor) -> Any:
    y = self.rnn(x)[0]
    return y * 2 if x.size(0) < x.size(1) else y


def _cut(self: Any, x: torch.Tensor) -> Any:
    return self.rnn(x[:, : min(x.size(1), 4)])[0][:, -1]


@pytest.mark.parametrize("forward", [_by_length, _by_batch, _by_both, _cut])
def test_code_that_branches_on_sizes(forward: Callable[..., Any], backend: str) -> None:
    """The trace holds one branch. Sizes that take the other are refused, by name, or right."""
    module = build(forward, rnn=lstm())
    spec = converted(module, normal(3, 6, 3))
    if spec is None:
        return
    model = Model(spec, backend)
    for batch, steps in [(3, 6), (4, 9), (1, 6), (2, 2), (3, 3), (7, 5), (9, 2), (5, 4)]:
        x, refusal = normal(batch, steps, 3), ""
        try:
            (y,) = outputs(model, x)
        except NpylstmError as error:
            refusal = str(error)
        if refusal:
            assert (batch, steps) != (3, 6), "the example itself"
            assert re.search("batch|steps", refusal), refusal
        else:
            np.testing.assert_allclose(y, expected(module, x)[0], atol=1e-6, rtol=0)


def _writes_to_a_view(self: Any, x: torch.Tensor) -> Any:
    y = self.rnn(x)[0]
    y[:, 0].add_(1)
    return y


def _writes_to_a_slice(self: Any, x: torch.Tensor) -> Any:
    y = self.rnn(x)[0].clone()
    y[:, 1:] *= 2
    return y


def _sets_a_step(self: Any, x: torch.Tensor) -> Any:
    y = self.rnn(x)[0].clone()
    y[:, -1] = 0
    return y


def _fills_a_result(self: Any, x: torch.Tensor) -> Any:
    made = torch.zeros(x.size(0), x.size(1), 6)
    made[:, :, :3] = x
    return made


def _alias(self: Any, x: torch.Tensor) -> Any:
    y = torch.relu(x)
    z = y.view(x.size(0), -1)
    z.add_(1)
    return y


@pytest.mark.parametrize(
    "forward", [_writes_to_a_view, _writes_to_a_slice, _sets_a_step, _fills_a_result, _alias]
)
def test_writing_into_parts_of_tensors(forward: Callable[..., Any], backend: str) -> None:
    """Refused, or right."""
    module = build(forward, rnn=lstm())
    spec = converted(module, normal(2, 6, 3), "not supported|cannot trace")
    if spec is not None:
        x = normal(4, 6, 3)
        (y,), (theirs,) = outputs(Model(spec, backend), x), expected(module, x.clone())
        np.testing.assert_allclose(y, theirs, atol=1e-6, rtol=0)


# ---------------------------------------------------------------- samples that would mix

MIXING: dict[str, Callable[..., Any]] = {
    "output[-1] with batch_first": lambda self, x: self.rnn(x)[0][-1],
    "output[:, -1] without": lambda self, x: self.second(x)[0][:, -1],
    "x[0]": lambda self, x: self.rnn(x)[0] + x[0, 0, 0],
    "x.mean(0)": lambda self, x: self.rnn(x - x.mean(0))[0],
    "mean of all": lambda self, x: self.rnn(x)[0].mean(),
    "sum of all": lambda self, x: self.rnn(x)[0] / self.rnn(x)[0].sum(),
    "max over the batch": lambda self, x: self.rnn(x)[0].max(0)[0],
    "amax of all": lambda self, x: x / torch.amax(x),
    "a view as (steps, batch)": lambda self, x: self.second(x.view(x.size(1), x.size(0), -1))[0],
    "layers viewed as samples": lambda self, x: self.deep(x)[1][0].reshape(-1, 12),
    "torch.cat": lambda self, x: torch.cat([x, self.rnn(x)[0][..., :3]], 0),
    "flip": lambda self, x: self.rnn(x)[0].flip(0),
    "every second sample": lambda self, x: self.rnn(x)[0][::2],
    "softmax": lambda self, x: torch.softmax(self.rnn(x)[0], 0),
    "log_softmax": lambda self, x: F.log_softmax(self.rnn(x)[0], 0),
    "softmax, steps first": lambda self, x: torch.softmax(self.second(x)[0], 1),
    "divided by their number": lambda self, x: self.rnn(x)[0] / x.size(0),
    "two layouts": lambda self, x: self.third(self.rnn(x)[0])[0],
    "matmul": lambda self, x: torch.matmul(x.permute(1, 2, 0), x.permute(1, 0, 2)),
    "all pairs": lambda self, x: self.rnn(x)[1][0][0] @ self.rnn(x)[1][0][0].t(),
    "all pairs by broadcasting": lambda self, x: self.rnn(x)[1][0][0].unsqueeze(1) - self.rnn(x)[1][0][0].unsqueeze(0),
    "pooling": lambda self, x: F.avg_pool1d(x.permute(1, 2, 0), 2),
    "pooling all": lambda self, x: F.adaptive_avg_pool1d(x.permute(1, 2, 0), 1),
    "convolution": lambda self, x: self.conv(x.permute(1, 2, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_samples_do_not_mix(name: str) -> None:
    module = build(MIXING[name], rnn=lstm(), second=lstm(False), third=nn.LSTM(6, 4), deep=lstm(num_layers=2), conv=nn.Conv1d(3, 2, 2))  # fmt: skip
    found = reasons(module, normal(4, 6, 3))
    assert any("batch" in reason for reason in found), found


def test_what_mixes_samples_is_named_with_its_line() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = lstm()

        def forward(self, x: torch.Tensor) -> Any:
            y, _ = self.rnn(x)
            return y[-1]

    (reason,) = reasons(Wrong(), normal(4, 6, 3))
    assert re.search(
        r"select.*axis 0 of \(batch, steps, 6\).*batch_first.*: return y\[-1\]", reason
    )


@pytest.fixture(autouse=True)
def _old_formats() -> Iterator[None]:
    """TorchScript is deprecated, and torch says so at every turn."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\.|copyreg")
        yield
