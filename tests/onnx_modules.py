"""PyTorch modules whose exports to ONNX the tests convert."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["MODULES", "Exported", "export"]

F, U = 3, 4
Forward = Callable[..., Any]


class Module(nn.Module):
    """Layers by name, and a function of them."""

    def __init__(self, forward: Forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, *inputs: Any) -> Any:
        return self._forward(self, *inputs)


def last_step(m: Any, x: Any) -> Any:
    return m.out(m.rnn(x)[0][:, -1])


def every_step(m: Any, x: Any) -> Any:
    return m.out(torch.relu(m.rnn(x)[0]))


def tagger(m: Any, ids: Any) -> Any:
    return torch.log_softmax(m.out(m.rnn(m.table(ids))[0]), -1)


def convolved(m: Any, x: Any) -> Any:
    y = torch.relu(m.conv(x.transpose(1, 2)))
    return m.out(m.rnn(y.transpose(1, 2))[0])


def encoder_decoder(m: Any, x: Any, y: Any) -> Any:
    return m.out(m.decoder(y, m.rnn(x)[1])[0])


def attention(m: Any, x: Any) -> Any:
    y = m.rnn(x)[0]
    weights = torch.softmax(m.score(y), dim=1)
    return m.out((weights * y).sum(1))


def made_zeros(m: Any, x: Any) -> Any:
    zero = torch.zeros(2, x.size(0), U)
    y, (h, _) = m.rnn(x, (zero, zero))
    return m.out(y[:, -1]), h


def in_windows(m: Any, x: Any) -> Any:
    """Shape arithmetic: halves of the units side by side, means over pairs of features."""
    y = m.rnn(x)[0]
    batch, steps = y.size(0), y.size(1)
    y = y.reshape(batch, steps, 2, U // 2).transpose(2, 3).reshape(batch * steps, -1)
    return m.out(y).view(batch, steps, -1)


def final_states(m: Any, x: Any) -> Any:
    _, (h, c) = m.rnn(x)
    return torch.cat([h[-2], h[-1], c.sum(0)], 1)


def rnn(kind: Any, features: int = F, **options: Any) -> nn.Module:
    made: nn.Module = kind(features, U, **{"batch_first": True, **options})
    return made


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[int | str, ...]]  # a size that is no number is free


X: Mapping[str, tuple[int | str, ...]] = {"x": ("batch", "steps", F)}
MODULES: Mapping[str, Case] = {
    "lstm_last": Case(lambda: Module(last_step, rnn=rnn(nn.LSTM), out=nn.Linear(U, 2)), X),
    "gru_stack": Case(
        lambda: Module(every_step, rnn=rnn(nn.GRU, num_layers=2), out=nn.Linear(U, 2)), X
    ),
    "rnn_relu": Case(
        lambda: Module(every_step, rnn=rnn(nn.RNN, nonlinearity="relu"), out=nn.Linear(U, 2)), X
    ),
    "tagger": Case(
        lambda: Module(tagger, table=nn.Embedding(9, F), rnn=rnn(nn.LSTM, bidirectional=True),
                       out=nn.Linear(2 * U, 5)),
        {"ids": ("batch", "steps")},
    ),
    "convolved": Case(
        lambda: Module(convolved, conv=nn.Conv1d(F, 5, 3, padding=1), rnn=rnn(nn.GRU, 5),
                       out=nn.Linear(U, 2)), X,
    ),
    "encoder_decoder": Case(
        lambda: Module(encoder_decoder, rnn=rnn(nn.LSTM), decoder=rnn(nn.LSTM, 2),
                       out=nn.Linear(U, 2)),
        {"x": ("batch", "steps", F), "y": ("batch", "decoded", 2)},
    ),
    "attention": Case(
        lambda: Module(attention, rnn=rnn(nn.GRU, bidirectional=True), score=nn.Linear(2 * U, 1),
                       out=nn.Linear(2 * U, 2)), X,
    ),
    "made_zeros": Case(
        lambda: Module(made_zeros, rnn=rnn(nn.LSTM, num_layers=2), out=nn.Linear(U, 2)), X
    ),
    "in_windows": Case(lambda: Module(in_windows, rnn=rnn(nn.LSTM), out=nn.Linear(U, 3)), X),
    "final_states": Case(
        lambda: Module(final_states, rnn=rnn(nn.LSTM, bidirectional=True)), X
    ),
    "sequence_first": Case(
        lambda: Module(every_step, rnn=rnn(nn.LSTM, batch_first=False), out=nn.Linear(U, 2)),
        {"x": ("steps", "batch", F)},
    ),
    "unbatched": Case(
        lambda: Module(every_step, rnn=rnn(nn.LSTM), out=nn.Linear(U, 2)), {"x": ("steps", F)}
    ),
    "fixed_batch": Case(
        lambda: Module(last_step, rnn=rnn(nn.GRU, num_layers=2), out=nn.Linear(U, 2)),
        {"x": (1, "steps", F)},
    ),
    "fixed": Case(
        lambda: Module(in_windows, rnn=rnn(nn.LSTM), out=nn.Linear(U, 3)), {"x": (1, 7, F)}
    ),
}  # fmt: skip


class Exported(NamedTuple):
    data: bytes
    outputs: list[str]


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Set all parameters, so that gates differ and no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        numbers = torch.rand(parameter.shape, generator=generator) * 1.2 - 0.6
        parameter.data = numbers + 0.05 * torch.sign(numbers)
    return module.eval()


def export(name: str, *, dynamo: bool = False, opset: int = 17) -> bytes:
    """Return the file that PyTorch writes of a module."""
    case = MODULES[name]
    module = randomise(case.make())
    sizes = {"batch": 2, "steps": 6, "decoded": 5}
    example, free = [], {}
    for own, shape in case.inputs.items():
        numbers = [sizes.get(str(d), d) for d in shape]
        integers = own == "ids"
        example.append(torch.randint(9, numbers) if integers else torch.rand(numbers))
        free[own] = {axis: d for axis, d in enumerate(shape) if isinstance(d, str)}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the old exporter, batches of recurrent layers
        if dynamo:
            dims = {d: torch.export.Dim(d, min=1) for own in free.values() for d in own.values()}
            shapes = tuple({axis: dims[d] for axis, d in own.items()} for own in free.values())
            program = torch.onnx.export(
                module,
                tuple(example),
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=[*case.inputs],
                verbose=False,
            )
            program.save(file)
        else:
            torch.onnx.export(
                module,
                tuple(example),
                file,
                dynamo=False,
                dynamic_axes=free,
                input_names=[*case.inputs],
                opset_version=opset,
            )
    return file.getvalue()
