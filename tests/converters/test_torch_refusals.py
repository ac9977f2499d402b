"""What cannot be converted is refused, with every reason at once; what is given stays untouched."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from backends import BACKENDS
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch.nn.utils.rnn import pack_padded_sequence

from npylstm import FormatError, Model, NpylstmError, UnsupportedError


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Several threads take longer for tensors this small, much longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A module with this forward and these submodules."""
    made = type("Forward", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return torch.as_tensor(values.astype(np.float32))


def lstm(batch_first: bool = True, **options: Any) -> nn.LSTM:
    return nn.LSTM(3, 6, batch_first=batch_first, **options)


def reasons(module: Any, example: Any) -> tuple[str, ...]:
    with pytest.raises(UnsupportedError) as caught:
        nc.from_torch(module, example)
    for reason in caught.value.reasons:
        assert reason in str(caught.value)
    return tuple(caught.value.reasons)


def converted(module: Any, example: Any, pattern: str = "") -> Any:
    """The spec; or None if the module is refused, for a reason that fits the pattern."""
    try:
        return nc.from_torch(module, example)
    except NpylstmError as error:
        reason = str(error)
    assert re.search(pattern, reason), reason
    return None


def outputs(model: Model, *xs: torch.Tensor) -> list[Any]:
    arrays = [x.numpy() for x in xs]
    y = model.predict(arrays if len(arrays) > 1 else arrays[0])
    return list(y.values()) if isinstance(y, dict) else [y]


def expected(module: nn.Module, *xs: torch.Tensor) -> list[Any]:
    with torch.no_grad():
        y = module.eval()(*xs)
    return [v.numpy() for v in (y if isinstance(y, tuple) else (y,))]


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


# ---------------------------------------------------------------- what torch.export cannot trace


class Positive(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        if x.sum() > 0:
            return x
        return -x


class UntilSmall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        while x.abs().max().item() > 0.1:
            x = self.cell(x) / 2
        return x


class ToNumpy(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.as_tensor(np.tanh(x.numpy()))


class PackingWhole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()

    def forward(self, x: torch.Tensor) -> Any:
        rows = pack_padded_sequence(x, torch.tensor([6, 4]), batch_first=True)
        return self.rnn(rows)[1][0][-1]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> Any:
        self.seen += 1
        return x * self.seen


class Remembering(nn.Module):
    """A stateful layer as people write it: the state is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()
        self.register_buffer("h", torch.zeros(1, 2, 6))
        self.register_buffer("c", torch.zeros(1, 2, 6))

    def forward(self, x: torch.Tensor) -> Any:
        y, (h, c) = self.rnn(x, (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return y


class Renorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4, max_norm=0.5)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.words(ids)


UNTRACEABLE: dict[str, tuple[type[nn.Module], Any, str]] = {
    "a branch on numbers": (Positive, normal(2, 6, 3), "Positive: forward takes a number out of a tensor"),
    "a loop on numbers": (UntilSmall, normal(2, 3), "UntilSmall: forward takes a number out of a tensor"),
    "numpy": (ToNumpy, normal(2, 6, 3), "numpy|cannot trace it"),
    "packing by a constant": (PackingWhole, normal(2, 6, 3), "2 lengths that are fixed"),
    "a counter": (Counting, normal(2, 6, 3), "seen: the module writes to this buffer"),
    "a state in buffers": (Remembering, normal(2, 6, 3), "h: the module writes to this buffer"),
    "an embedding that renormalises": (Renorm, torch.tensor([[1, 2], [3, 4]]), "embedding_renorm|words"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_code_that_has_no_graph(name: str) -> None:
    make, example, pattern = UNTRACEABLE[name]
    module = make()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found = reasons(module, example)
    assert any(re.search(pattern, r) for r in found), found
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


class Continuing(nn.Module):
    """Stateful, and without a state at first."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()
        self.hidden: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        y, self.hidden = self.rnn(x, self.hidden)
        return y


def test_a_state_that_the_module_keeps_for_itself(backend: str) -> None:
    """Refused; or the model begins where the module does, and goes on by its own state."""
    module = Continuing()
    spec = converted(module, normal(2, 6, 3), "hidden")
    assert module.hidden is None, "the conversion left a state in the module"
    if spec is None:
        return
    model = Model(spec, backend)
    first, second = normal(4, 5, 3), normal(4, 3, 3)
    y, state = model.predict(first.numpy(), return_state=True)
    np.testing.assert_allclose(y, expected(module, first)[0], atol=1e-6, rtol=0)
    y = model.predict(second.numpy(), state=state)
    np.testing.assert_allclose(y, expected(module, second)[0], atol=1e-6, rtol=0)


def test_a_state_in_buffers_names_them_all() -> None:
    found = reasons(Remembering(), normal(2, 6, 3))
    assert [r.partition(":")[0] for r in found] == ["h", "c"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    module = build(lambda self, x: self.rnn(x)[0], rnn=lstm()).to(dtype)
    (reason,) = reasons(module, normal(2, 6, 3).to(dtype))
    assert name in reason
    assert "module.float()" in reason


def test_inputs_in_half_precision() -> None:
    found = reasons(build(lambda self, x: x * 2), normal(2, 6, 3).half())
    assert any("float16" in r for r in found), found


def test_weights_of_two_types() -> None:
    module = build(lambda self, x: self.b(self.a(x.double()).float()), a=nn.Linear(3, 3).double(), b=nn.Linear(3, 3))  # fmt: skip
    found = reasons(module, normal(2, 6, 3))
    assert any("float32 and float64" in r for r in found), found


def test_weights_without_numbers() -> None:
    module = build(lambda self, x: self.out(x), out=nn.Linear(3, 2)).to("meta")
    with pytest.raises(NpylstmError):
        nc.from_torch(module, normal(2, 6, 3).to("meta"))


def test_complex_weights() -> None:
    module = build(lambda self, x: torch.real(x * self.w), w=nn.Parameter(torch.ones(3, dtype=torch.complex64)))  # fmt: skip
    with pytest.raises(UnsupportedError):
        nc.from_torch(module, normal(2, 6, 3))


# ---------------------------------------------------------------- wrong calls


@pytest.mark.parametrize(
    "source",
    [42, None, [1], {}, nn.LSTM, lambda x: x, np.zeros(3), torch.zeros(3), nn.LSTM(3, 4).state_dict()],
)  # fmt: skip
def test_what_is_no_module(source: Any) -> None:
    with pytest.raises(
        FormatError, match=rf"expected .*torch\.nn\.Module.*got {type(source).__name__}"
    ):
        nc.from_torch(source, normal(2, 6, 3))


def test_no_example() -> None:
    for call in (nc.from_torch, nc.convert):
        with pytest.raises(NpylstmError, match=r"needs example inputs: .*example"):
            call(lstm())


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()

    def forward(self, x: torch.Tensor) -> Any:
        return self.rnn(x)[0]


@pytest.mark.parametrize(
    ("example", "pattern"),
    [
        (normal(2, 6, 4), r"Expected 3"),
        (normal(2, 6), r"Expected 3|batch"),
        ((normal(2, 6, 3), normal(2, 6, 3)), r"too many|takes|arguments?"),
        ((), r"missing .*x"),
        ({"y": normal(2, 6, 3)}, r"x|y"),
        ("abc", r"tensor|str"),
        (3, r"tensor|int"),
        (normal(2, 6, 3).double(), r"float64.*float32"),
        (torch.zeros(2, 6, 3, dtype=torch.int64), r"int64.*float32"),
        (torch.zeros(2, 0, 3), r"out of bounds|size 0|length|empty|got 0|steps"),
    ],
)
def test_wrong_examples(example: Any, pattern: str) -> None:
    with pytest.raises(NpylstmError, match=pattern) as caught:
        nc.from_torch(Plain(), example)
    assert "Traceback" not in str(caught.value)


def test_examples_as_numpy_arrays() -> None:
    """Taken as tensors, or refused in words; no error of torch's inside."""
    spec = converted(Plain(), normal(2, 6, 3).numpy(), "tensor")
    if spec is not None:
        assert [t.shape for t in spec.inputs] == [("batch", "steps", 3)]


def test_options_of_files_do_not_go_with_modules() -> None:
    for option in ({"layers": "rnn"}, {"batch_first": True}, {"key": "model"}):
        with pytest.raises(NpylstmError, match="state_dict file"):
            nc.from_torch(Plain(), normal(2, 6, 3), **option)


def test_convert_takes_modules() -> None:
    spec = nc.convert(Plain(), example=normal(2, 6, 3))
    assert spec.provenance["framework"] == "PyTorch"
    assert spec.provenance["framework_version"] == torch.__version__


def test_lengths_that_do_not_fit(backend: str) -> None:
    model = Model(nc.from_torch(Plain(), normal(2, 6, 3)), backend)
    x = normal(2, 6, 3).numpy()
    for lengths in ([6], [6, 7], [0, 3], [[1, 2]], [1.0, 2.0], [-1, 2]):
        with pytest.raises(NpylstmError, match="lengths: expected"):
            model.predict(x, lengths=lengths)


# ---------------------------------------------------------------- what is given stays as it is

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def kernels() -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(torch.ops.aten, name).input.py_kernels) for name in RECURRENT}


def surroundings() -> dict[str, Any]:
    """Everything global that a conversion might have left changed."""
    names = ["torch", "torch.export", "torch._export"]
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 - it is the global one that must not move
        "threads": torch.get_num_threads(),
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in names],
        "nn": (nn.LSTM.forward, nn.Module.__call__, torch.export.export, F.dropout),
        "kernels": kernels(),
    }


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4, padding_idx=0)
        self.rnn = nn.LSTM(4, 5, 2, batch_first=True, dropout=0.5, bidirectional=True)
        self.norm = nn.BatchNorm1d(10)
        self.act = nn.ReLU()
        self.gru = nn.GRU(10, 3, batch_first=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, ids: torch.Tensor) -> Any:
        y = self.norm(self.rnn(self.words(ids))[0].transpose(1, 2)).transpose(1, 2)
        return self.drop(self.gru(self.act(y))[0])


class Failing(Everything):
    def forward(self, ids: torch.Tensor) -> Any:
        return torch.lgamma(super().forward(ids))


class Raising(Everything):
    def forward(self, ids: torch.Tensor) -> Any:
        y = super().forward(ids)
        if y.ndim:
            raise RuntimeError("the user's own trouble")
        return y


@pytest.mark.parametrize("make", [Everything, Failing, Raising])
def test_modules_and_surroundings_are_left_alone(make: type[nn.Module]) -> None:
    module = make()
    module.train()
    module.norm.eval()  # a module half in train mode, as in fine-tuning
    module.rnn.weight_ih_l0.requires_grad_(False)
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    modes = {name: m.training for name, m in module.named_modules()}
    weights = {k: (v, v.clone(), v.requires_grad) for k, v in module.named_parameters()}
    buffers = {k: v.clone() for k, v in module.named_buffers()}
    attributes = {name: set(vars(m)) for name, m in module.named_modules()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    before = surroundings()
    if make is Everything:
        nc.from_torch(module, ids)
    else:
        with pytest.raises(UnsupportedError, match="lgamma" if make is Failing else "own trouble"):
            nc.from_torch(module, ids)
    assert surroundings() == before
    assert {name: m.training for name, m in module.named_modules()} == modes
    assert {name: set(vars(m)) for name, m in module.named_modules()} == attributes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()] == hooks
    assert ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    for key, (own, values, asks) in weights.items():
        now = dict(module.named_parameters())[key]
        assert now is own
        assert now.requires_grad is asks
        assert now.grad is None
        torch.testing.assert_close(now, values, rtol=0, atol=0)
    for key, values in buffers.items():
        torch.testing.assert_close(dict(module.named_buffers())[key], values, rtol=0, atol=0)


def test_the_spec_does_not_share_memory_with_the_module() -> None:
    module = Plain()
    model = Model(nc.from_torch(module, normal(2, 6, 3)), "numpy")
    x = normal(3, 4, 3)
    before = outputs(model, x)[0]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(outputs(model, x)[0], before)


def test_an_example_is_not_written_to() -> None:
    module = build(lambda self, x: self.rnn(x.mul_(2))[0], rnn=lstm())
    for batch in (1, 2):  # one sample is given a second
        x = normal(batch, 6, 3)
        nc.from_torch(module, x)
        torch.testing.assert_close(x, normal(batch, 6, 3), rtol=0, atol=0)


def test_conversion_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """No warnings (they are errors here) and nothing printed."""
    nc.from_torch(Everything(), torch.tensor([[1, 2, 3], [4, 5, 0]]))
    with pytest.raises(UnsupportedError):
        nc.from_torch(Failing(), torch.tensor([[1, 2, 3], [4, 5, 0]]))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


THREADS = """
import threading, torch
from torch import nn
import npylstm_converters as nc

op = torch.ops.aten.lstm.input
before, failed = dict(op.py_kernels), []

def convert():
    try:
        for steps in (4, 5, 6):
            spec = nc.from_torch(nn.LSTM(3, 4, batch_first=True), torch.zeros(2, steps, 3))
            assert spec.inputs[0].shape == ("batch", "steps", 3), spec.inputs
    except Exception as error:
        failed.append(error)

threads = [threading.Thread(target=convert) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not failed, failed
assert dict(op.py_kernels) == before, "left patched"
"""


def test_conversions_in_several_threads() -> None:
    """In a process of its own: what is left of torch otherwise would fail all other tests."""
    command = [sys.executable, "-W", "ignore", "-c", THREADS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_training_goes_on_after_conversion() -> None:
    module = Plain().train()
    nc.from_torch(module, normal(2, 6, 3))
    module(normal(2, 6, 3)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


# ---------------------------------------------------------------- saved programs


class Saved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y, _ = self.rnn(x)
        return self.out(self.norm(y[:, -1, :]))


class SavedState(Saved):
    def forward(self, x: torch.Tensor) -> Any:
        y, (h, c) = self.rnn(x)
        return self.out(self.norm(y)), h[-1], c


@pytest.fixture
def saved() -> nn.Module:
    torch.manual_seed(7)
    return Saved().eval()


@pytest.fixture(autouse=True)
def _old_formats() -> Iterator[None]:
    """TorchScript is deprecated, and torch says so at every turn."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\.|copyreg")
        yield


def export(module: nn.Module, x: torch.Tensor, dynamic: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own LSTM
        return torch.export.export(module, (x,), dynamic_shapes=dynamic)


def assert_same_numbers(spec: Any, module: nn.Module, *xs: torch.Tensor) -> None:
    live = nc.from_torch(module, normal(2, 6, 3))
    for backend in BACKENDS:
        for x in xs:
            ours = outputs(Model(spec, backend), x)
            for y, theirs in zip(ours, expected(module, x), strict=True):
                np.testing.assert_allclose(y, theirs, atol=1e-6, rtol=0)
            for y, theirs in zip(ours, outputs(Model(live, backend), x), strict=True):
                np.testing.assert_array_equal(y, theirs)


@pytest.mark.parametrize("dynamic", [{0: torch.export.Dim.AUTO}, {0: torch.export.Dim("n")}])
def test_exported_programs_with_a_free_batch(
    saved: nn.Module, dynamic: Any, tmp_path: Path
) -> None:
    program = export(saved, normal(2, 6, 3), {"x": dynamic})
    torch.export.save(program, tmp_path / "model.pt2")
    xs = [normal(2, 6, 3), normal(5, 6, 3), normal(1, 6, 3)]
    for source in (program, tmp_path / "model.pt2", str(tmp_path / "model.pt2")):
        spec = nc.from_torch(source)
        assert_same_numbers(spec, saved, *xs)
        assert_same_numbers(nc.convert(source), saved, *xs)
    assert len(nc.from_torch(tmp_path / "model.pt2").provenance["source_sha256"]) == 64


@pytest.mark.parametrize("batch", [1, 2])
def test_exported_programs_with_every_size_pinned(
    saved: nn.Module, batch: int, tmp_path: Path
) -> None:
    program = export(saved, normal(batch, 6, 3))
    torch.export.save(program, tmp_path / "model.pt2")
    for source in (program, tmp_path / "model.pt2"):
        spec = nc.from_torch(source)
        assert_same_numbers(spec, saved, normal(batch, 6, 3), normal(5, 6, 3))


def test_a_program_of_a_refused_module(tmp_path: Path) -> None:
    program = export(Gamma(), normal(2, 6, 3))
    torch.export.save(program, tmp_path / "model.pt2")
    for source in (program, tmp_path / "model.pt2"):
        with pytest.raises(UnsupportedError, match="lgamma is not supported"):
            nc.from_torch(source)


def test_a_pinned_program_that_mixes_samples() -> None:
    program = export(build(lambda self, x: self.rnn(x)[0][-1], rnn=lstm()), normal(2, 6, 3))
    with pytest.raises(UnsupportedError, match="batch"):
        nc.from_torch(program)


def script(module: nn.Module, x: torch.Tensor) -> Any:
    return torch.jit.script(module)


def trace(module: nn.Module, x: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TracerWarning, about PyTorch's own LSTM
        return torch.jit.trace(module, x)


def freeze(module: nn.Module, x: torch.Tensor) -> Any:
    return torch.jit.freeze(torch.jit.script(module))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("make", [script, trace, freeze])
def test_torchscript(
    saved: nn.Module, make: Callable[..., Any], batch: int, tmp_path: Path
) -> None:
    x = normal(batch, 6, 3)
    make(saved, x).save(str(tmp_path / "model.pt"))
    spec = nc.from_torch(tmp_path / "model.pt", x)
    assert_same_numbers(spec, saved, x, normal(4, 9, 3), normal(1, 3, 3))


@pytest.mark.parametrize("make", [script, trace])
def test_torchscript_that_returns_states(make: Callable[..., Any], tmp_path: Path) -> None:
    """torch itself cannot export a scripted LSTM whose states are used; a traced one it can."""
    module, x = SavedState().eval(), normal(2, 6, 3)
    make(module, x).save(str(tmp_path / "model.pt"))
    spec = converted(tmp_path / "model.pt", x, r"model\.pt: torch cannot load it")
    assert spec is not None or make is script
    if spec is not None:
        assert_same_numbers(spec, module, x, normal(4, 9, 3))


def test_torchscript_without_an_example(saved: nn.Module, tmp_path: Path) -> None:
    script(saved, normal(2, 6, 3)).save(str(tmp_path / "model.pt"))
    with pytest.raises(
        NpylstmError, match=r"model\.pt: is TorchScript, which needs example inputs"
    ):
        nc.from_torch(tmp_path / "model.pt")


def test_torchscript_of_a_refused_module(tmp_path: Path) -> None:
    torch.jit.trace(Gamma(), normal(2, 6, 3)).save(str(tmp_path / "model.pt"))
    with pytest.raises(NpylstmError, match="lgamma"):
        nc.from_torch(tmp_path / "model.pt", normal(2, 6, 3))


def test_torchscript_in_memory(saved: nn.Module) -> None:
    """Converted as its file is, or refused with what to do."""
    spec = converted(script(saved, normal(2, 6, 3)), normal(2, 6, 3), "TorchScript|save")
    if spec is not None:
        assert_same_numbers(spec, saved, normal(2, 6, 3), normal(4, 9, 3))


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("data/weights/model_weights_config.json",
         lambda b: b.replace(b'"use_pickle": false', b'"use_pickle": true'), "is a pickle"),
        ("data/weights/model_weights_config.json",
         lambda b: b.replace(b"weight_0", b"opaque_obj_0"), "holds an object or machine code"),
        ("data/weights/model_weights_config.json", lambda b: b[:-9], "expected a list of tensors"),
        ("data/sample_inputs/model.pt", lambda b: b"cos\nmkdir\n(S'x'\ntR.", "expected what torch.save writes"),
        ("data/constants/opaque_obj_0", lambda b: b"x", "holds an object or machine code"),
        ("data/aotinductor/model/model.so", lambda b: b"x", "holds an object or machine code"),
    ],
)  # fmt: skip
def test_a_program_with_pickles_is_not_loaded(
    member: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    """torch.export.load unpickles what a program's lists tell it to, weights_only or not."""
    program = torch.export.export(nn.Linear(2, 3), (torch.zeros(2, 2),))
    torch.export.save(program, tmp_path / "sound.pt2")
    with zipfile.ZipFile(tmp_path / "sound.pt2") as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    prefix = next(iter(parts)).partition("/")[0]
    name = f"{prefix}/{member}"
    changed = {**parts, name: change(parts.get(name, b""))}
    assert changed != parts
    with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
        for part, content in changed.items():
            archive.writestr(part, content)
    with pytest.raises(NpylstmError, match=message):
        nc.from_torch(tmp_path / "evil.pt2")
