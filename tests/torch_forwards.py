"""The code of forward, as people write it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch_parity import Parts, both, lstm


def _tutorial(self: Any, x: Any) -> Any:
    h0 = torch.zeros(2, x.size(0), 6).requires_grad_()
    c0 = torch.zeros(2, x.size(0), 6).requires_grad_()
    out, (_, _) = self.rnn(x, (h0.detach(), c0.detach()))
    return self.out(out[:, -1, :])


def _zeros_of_new_memory(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    h = x.new_empty(2, x.size(0), 6).zero_()
    return self.out(self.rnn(x, (h, x.new_empty(h.shape).fill_(0.5)))[0][:, -1])


def _zeros_on_a_device(self: Any, x: Any) -> Any:
    device = "cuda" if x.is_cuda else "cpu"
    h0 = torch.zeros(2, x.size(0), 6).to(device)
    c0 = torch.zeros(2, x.size(0), 6, device=x.device, dtype=x.dtype)
    return self.out(self.rnn(x, (h0, c0))[0][:, -1])


def _reshaped_and_back(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    steps = self.out(y.reshape(-1, 6))
    return steps.view(x.size(0), x.size(1), -1)


def _batch_size_by_shape(self: Any, x: Any) -> Any:
    batch_size, seq_len, _ = x.shape
    y, (h, _) = self.rnn(x)
    y = self.out(y.contiguous().view(batch_size * seq_len, 6)).view(batch_size, seq_len, 2)
    return y, h.view(1, batch_size, 6).squeeze(0)


def _layers_and_directions(self: Any, x: Any) -> Any:
    _, (h, _) = self.rnn(x)
    h = h.view(2, 2, x.size(0), 6)
    return torch.cat([h[-1, 0], h[-1, 1]], dim=-1)


def _attention(self: Any, x: Any) -> Any:
    y, (h, _) = self.rnn(x)
    scores = torch.bmm(y, h[-1].unsqueeze(2)).squeeze(2)
    weights = F.softmax(scores, dim=1)
    return torch.bmm(weights.unsqueeze(1), y).squeeze(1), weights


def _additive_attention(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    weights = torch.softmax(torch.tanh(self.out(y))[..., :1], dim=1)
    return (weights * y).sum(dim=1)


def _bmm_of_transposed(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    scores = torch.matmul(y, y.transpose(1, 2)) / math.sqrt(6)
    return torch.softmax(scores, -1) @ y


def _in_place(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    y = y.mul_(3).relu_()
    y += 0.5
    y = y.add_(x[..., :1]).sub_(0.1)
    y.div_(2)
    return torch.tanh_(self.out(y)).clamp_(-0.5, 0.5)


def _in_place_on_its_input(self: Any, x: Any) -> Any:
    x.mul_(2)
    x -= 1
    return self.rnn(x)[0]


def _zeros_filled_in_place(self: Any, x: Any) -> Any:
    h = torch.empty(1, x.size(0), 6).zero_()
    return self.rnn(x, (h, torch.zeros_like(h)))[0]


def _learned_state(self: Any, x: Any) -> Any:
    h = self.h0.expand(-1, x.size(0), -1).contiguous()
    c = self.c0.repeat(1, x.size(0), 1)
    return self.rnn(x, (h, c))[0]


def _ones_for_states(self: Any, x: Any) -> Any:
    h = x.new_ones(1, x.size(0), 6)
    c = torch.full((1, x.size(0), 6), 0.5, dtype=x.dtype)
    return self.rnn(x, (h, c))


def _state_handed_on(self: Any, x: Any) -> Any:
    _, state = self.rnn(x)
    y, (h, c) = self.rnn(x * 0.5, state)
    return y, h, c


def _encoder_and_decoder(self: Any, x: Any) -> Any:
    _, (h, c) = self.encoder(x)
    return self.out(self.decoder(x.flip(1), (h, c))[0])


def _repeated_code(self: Any, x: Any) -> Any:
    _, (h, _) = self.encoder(x)
    code = h[-1].unsqueeze(1).repeat(1, x.size(1), 1)
    return self.out(self.decoder(code)[0])


def _residual(self: Any, x: Any) -> Any:
    y = self.first(x)[0]
    y = y + self.second(y)[0]
    return self.out(F.relu(y))


def _arithmetic(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    y = (1 - y) / 3 + y**2 - 2 * y
    y = -y / (3 + y.abs()) + 1 / (2 + y * y) - (0.5 + y)
    y = torch.add(y, x[..., :1], alpha=2) - torch.sub(y, 0.25, alpha=3)
    return y * x[:, :, 1:2] + torch.rsub(y, x[..., 2:], alpha=1)


def _functions(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    a = torch.sqrt(y.abs() + 0.1) + torch.exp(y) + torch.log(y * y + 1) + torch.log1p(y * y)
    b = torch.sin(y) * torch.cos(y) + torch.rsqrt(y * y + 1) + torch.expm1(y) + y.square()
    return torch.maximum(a, b) + torch.minimum(a, y) + torch.sign(y) + (y * y + 1) ** 0.5


def _gated(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    value, gate = y.chunk(2, dim=-1)
    a, b, c = torch.split(y, 2, dim=2)
    d, e = y.split([1, 5], dim=-1)
    return value * torch.sigmoid(gate), a + b - c, d * e


def _slices(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return (
        y[:, ::2], y[:, 1:-1], y[:, -3:], y[:, 1::3, 1:4], y[..., -1], y[:, 0], y.select(2, 3),
        y.narrow(2, 1, 2), y[:, -2, ::5],
    )  # fmt: skip


def _reductions(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return (
        y.mean(1), y.mean(dim=-1, keepdim=True), y.sum(1), y.max(1)[0], y.max(dim=1).values,
        y.min(dim=2).values, torch.amax(y, 1), y.amin(dim=(1, 2)), torch.mean(y, (1, 2)),
    )  # fmt: skip


def _pooled(self: Any, x: Any) -> Any:
    y, (h, _) = self.rnn(x)
    return self.out(y.mean(1)) + self.out(torch.max(y, dim=1)[0]) + self.out(h[-1])


def _axes(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    a = y.permute(1, 0, 2)
    b = y.transpose(1, 2).unsqueeze(-1)
    return a, b.squeeze(-1).permute(0, 2, 1), y.unsqueeze(1).squeeze(1), y.permute(0, 2, 1)


def _flattened(self: Any, x: Any) -> Any:
    h = self.rnn(x)[1][0]
    a = h.permute(1, 0, 2).reshape(x.size(0), -1)
    b = torch.flatten(h.transpose(0, 1), 1)
    return a + b, h.transpose(0, 1).contiguous().view(-1, 12), b.unflatten(1, (2, 6))


def _stacked(self: Any, x: Any) -> Any:
    y, (h, c) = self.rnn(x)
    both = torch.stack([h, c])
    return both, torch.stack((y, y * 2), dim=1), torch.stack([y, y], -1), torch.cat([h, c], dim=2)


def _results_by_name(self: Any, x: Any) -> Any:
    y, (h, c) = self.rnn(x)
    return {"prediction": self.out(y[:, -1]), "state": [h, (c,)]}


def _results_repeated(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return y, y, x, y[:, -1]


def _mean_by_hand(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return y.sum(1) / x.size(1) + y.sum(1) * (1.0 / y.shape[1])


def _last_by_size(self: Any, x: Any) -> Any:
    return self.rnn(x)[0][:, x.size(1) - 1]


def _forwards_and_backwards(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return torch.cat((y[:, -1, :6], y[:, 0, 6:]), dim=1)


def _inputs_of_one_step(self: Any, x: Any) -> Any:
    y = self.rnn(x[:, :1])[0]
    return y, y.squeeze(1)


def _differences(self: Any, x: Any) -> Any:
    return self.rnn(x[:, 1:] - x[:, :-1])[0]


def _zeros_of_weights(self: Any, x: Any) -> Any:
    weight = next(self.parameters())
    return self.rnn(x, (weight.new_zeros(1, x.size(0), 6), weight.new_zeros(1, x.size(0), 6)))[0]


def _feeding_itself(self: Any, x: Any) -> Any:
    x = x[:, 0]
    h = torch.zeros(x.size(0), 6)
    c = torch.zeros(x.size(0), 6)
    made = []
    for _ in range(4):
        h, c = self.cell(x, (h, c))
        x = self.out(h)
        made.append(x)
    return torch.stack(made, dim=1)


FORWARDS: dict[str, tuple[Callable[[], Parts], Callable[..., Any]]] = {
    "output[:, -1, :]": (lstm, lambda self, x: self.out(self.rnn(x)[0][:, -1, :])),
    "output[-1]": (lambda: lstm(False), lambda self, x: self.out(self.rnn(x)[0][-1])),
    "a tuple": (lambda: lstm(num_layers=2), lambda self, x: self.rnn(x)),
    "h[-1]": (lambda: lstm(num_layers=2), lambda self, x: self.out(self.rnn(x)[1][0][-1])),
    "h[0] and c[1]": (lambda: lstm(num_layers=2), lambda self, x: (self.rnn(x)[1][0][0], self.rnn(x)[1][1][1])),
    "h[-2], h[-1]": (lambda: both(num_layers=2), lambda self, x: (lambda h: torch.cat([h[-2], h[-1]], 1))(self.rnn(x)[1][0])),
    "h.squeeze(0)": (lstm, lambda self, x: self.out(self.rnn(x)[1][0].squeeze(0))),
    "layers and directions": (lambda: both(num_layers=2), _layers_and_directions),
    "zeros as in tutorials": (lambda: lstm(num_layers=2), _tutorial),
    "zeros of new memory": (lambda: lstm(num_layers=2), _zeros_of_new_memory),
    "zeros on a device": (lambda: lstm(num_layers=2), _zeros_on_a_device),
    "zeros filled in place": (lstm, _zeros_filled_in_place),
    "ones for states": (lstm, _ones_for_states),
    "learned states": (lambda: {**lstm(), "h0": nn.Parameter(torch.zeros(1, 1, 6)), "c0": nn.Parameter(torch.zeros(1, 1, 6))}, _learned_state),
    "state handed on": (lstm, _state_handed_on),
    "encoder, decoder": (lambda: {"encoder": nn.LSTM(3, 6, batch_first=True), "decoder": nn.LSTM(3, 6, batch_first=True), "out": nn.Linear(6, 3)}, _encoder_and_decoder),
    "repeated code": (lambda: {"encoder": nn.LSTM(3, 6, batch_first=True), "decoder": nn.GRU(6, 4, batch_first=True), "out": nn.Linear(4, 3)}, _repeated_code),
    "residual": (lambda: {"first": nn.GRU(3, 6, batch_first=True), "second": nn.GRU(6, 6, batch_first=True), "out": nn.Linear(6, 3)}, _residual),
    "reshape(-1, H)": (lstm, _reshaped_and_back),
    "batch size by shape": (lstm, _batch_size_by_shape),
    "attention": (lstm, _attention),
    "additive attention": (lstm, _additive_attention),
    "self-attention": (lstm, _bmm_of_transposed),
    "in place": (lstm, _in_place),
    "in place on its input": (lstm, _in_place_on_its_input),
    "arithmetic": (lambda: {"rnn": nn.LSTM(3, 1, batch_first=True)}, _arithmetic),
    "functions": (lstm, _functions),
    "chunk and split": (lstm, _gated),
    "slices": (lstm, _slices),
    "reductions": (lstm, _reductions),
    "pooled": (lstm, _pooled),
    "axes": (lstm, _axes),
    "flattened": (lambda: lstm(num_layers=2), _flattened),
    "stacked": (lstm, _stacked),
    "results by name": (lstm, _results_by_name),
    "results repeated": (lstm, _results_repeated),
    "mean by hand": (lstm, _mean_by_hand),
    "last by size": (lstm, _last_by_size),
    "both ends": (both, _forwards_and_backwards),
    "one step": (lstm, _inputs_of_one_step),
    "differences": (lstm, _differences),
    "an axis behind a slice": (lstm, lambda self, x: self.rnn(x)[0][:, -2:, None]),
    "a slice flattened": (lstm, lambda self, x: self.rnn(x)[0][:, -2:].reshape(x.size(0), -1)),
    "two last steps": (lstm, lambda self, x: self.rnn(x)[0][:, -2:].reshape(-1, 12) @ torch.ones(12, 2)),
    "half rows": (lstm, lambda self, x: self.rnn(x)[0].reshape(-1, 3)),
    "swapaxes": (lstm, lambda self, x: torch.swapaxes(self.rnn(x)[0], 1, 2)),
    "y.mT": (lstm, lambda self, x: self.rnn(x)[0] @ self.rnn(x)[0].mT),
    "movedim": (lstm, lambda self, x: self.rnn(x)[0].movedim(1, 2)),
    "zeros of a weight's type": (lstm, _zeros_of_weights),
    "mean and number of steps": (lstm, lambda self, x: self.rnn(x)[0] * x.size(1)),
    "in place, behind BatchNorm": (lambda: {**lstm(), "norm": nn.BatchNorm1d(3)}, lambda self, x: self.rnn(F.relu(self.norm(x.transpose(1, 2)), inplace=True).transpose(1, 2))[0]),
    "step by step": (lambda: {"cell": nn.LSTMCell(3, 6), "out": nn.Linear(6, 3)}, _feeding_itself),
    "dropout as a function": (lstm, lambda self, x: F.dropout(self.rnn(x)[0], 0.5, self.training)),
    "log_softmax": (lstm, lambda self, x: F.log_softmax(self.out(self.rnn(x)[0]), dim=2)),
    "softmax over steps that come first": (lambda: lstm(False), lambda self, x: torch.softmax(self.rnn(x.permute(1, 0, 2))[0], 0).sum(0)),
    "permuted for batch_first=False": (lambda: lstm(False), lambda self, x: self.rnn(x.permute(1, 0, 2))[0].permute(1, 0, 2)),
    "weights of a Linear by hand": (lstm, lambda self, x: self.rnn(x)[0] @ self.out.weight.t() + self.out.bias),
    "addmm": (lstm, lambda self, x: torch.addmm(self.out.bias, self.rnn(x)[1][0][0], self.out.weight.t())),
    "F.linear": (lstm, lambda self, x: F.linear(self.rnn(x)[0], self.out.weight)),
    "a scalar parameter": (lambda: {**lstm(), "scale": nn.Parameter(torch.zeros(())), "shift": nn.Parameter(torch.zeros(6))}, lambda self, x: self.rnn(x)[0] * self.scale + self.shift),
    "a buffer": (lambda: {**lstm(), "norm": nn.BatchNorm1d(3)}, lambda self, x: self.rnn((x - self.norm.running_mean) / self.norm.running_var)[0]),
    "nothing but the input": (lambda: {}, lambda self, x: x[:, -1] * 2),
}  # fmt: skip
