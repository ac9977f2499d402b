"""Wrong calls of the conversion of modules, and what it leaves as it was."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch_refusals import build, converted, lstm, normal, outputs

from npylstm import FormatError, Model, NpylstmError, UnsupportedError

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.fixture(autouse=True)
def _old_formats() -> Iterator[None]:
    """TorchScript is deprecated, and torch says so at every turn."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\.|copyreg")
        yield
