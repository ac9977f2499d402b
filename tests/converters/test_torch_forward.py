"""The code of forward, and modules within modules, as people write them, against PyTorch itself."""

from __future__ import annotations

from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from backends import BACKENDS
from torch import nn
from torch_forwards import FORWARDS
from torch_parity import (
    assert_close,
    assert_parity,
    build,
    lstm,
    normal,
    predict,
    randomise,
    run,
    whole,
)

from npylstm import Model

# PyTorch's own, about how it runs what it runs; conversion must say nothing all the same.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


# ---------------------------------------------------------------- forward, as people write it


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.one_in(2)
def test_forward_code(name: str, tmp_path: Any) -> None:
    parts, forward = FORWARDS[name]
    examples = [normal(2, 5, 3), normal(1, 9, 3), normal(6, 8, 3)]
    assert_parity(build(forward, **parts()), *examples, saved_as=tmp_path / "model.npz")


@pytest.mark.parametrize("name", ["output[:, -1, :]", "output[-1]", "h[-2], h[-1]", "zeros as in tutorials",
                                  "attention", "reshape(-1, H)", "learned states", "repeated code",
                                  "batch size by shape", "layers and directions", "flattened"])  # fmt: skip
def test_examples_of_one_sample(name: str) -> None:
    parts, forward = FORWARDS[name]
    one = normal(5, 1, 3) if name == "output[-1]" else normal(1, 5, 3)
    assert_parity(build(forward, **parts()), one, normal(4, 7, 3))


def test_sizes_of_the_example_that_happen_to_be_equal() -> None:
    parts, forward = FORWARDS["attention"]
    assert_parity(build(forward, **parts()), normal(3, 3, 3), normal(4, 7, 3))
    rnn = nn.LSTM(4, 4, 4, batch_first=True)
    example = (normal(4, 4, 4), (normal(4, 4, 4, seed=1), normal(4, 4, 4, seed=2)))
    other = (normal(2, 9, 4), (normal(4, 2, 4, seed=1), normal(4, 2, 4, seed=2)))
    assert_parity(rnn, example, other)


def test_a_length_that_the_example_did_not_reach() -> None:
    """Slices are cut short, as in Python, where the sequence is shorter than the example."""
    module = build(
        lambda self, x: (self.rnn(x)[0][:, :4].sum(1), self.rnn(x)[0][:, -4:].mean(1)), **lstm()
    )
    assert_parity(module, normal(2, 9, 3), normal(3, 2, 3), normal(3, 4, 3), normal(1, 30, 3))


# ---------------------------------------------------------------- how modules are put together


class Last(nn.Module):
    def forward(self, outputs: Any) -> Any:
        return outputs[0][:, -1]


class Block(nn.Module):
    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.rnn = nn.GRU(features, units, batch_first=True, bidirectional=True)
        self.after = nn.Sequential(nn.Linear(2 * units, features), nn.ReLU(), nn.Dropout())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.after(self.rnn(self.norm(x))[0])


def test_sequential() -> None:
    module = nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.LSTM(4, 6, 2, batch_first=True, dropout=0.3), Last(),
        nn.Dropout(0.5), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2), nn.Identity(),
    )  # fmt: skip
    assert_parity(module, normal(2, 5, 3), normal(6, 9, 3))


def test_nested_modules() -> None:
    module = nn.Sequential(Block(3, 4), nn.Sequential(Block(3, 2), Block(3, 5)))
    assert_parity(module, normal(2, 5, 3), normal(6, 9, 3))


def test_modules_in_lists_and_dictionaries() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = layer(x)[0]
        return {name: head(x[:, -1]) for name, head in self.heads.items()}

    layers = nn.ModuleList(nn.LSTM(n, 5, batch_first=True) for n in (3, 5, 5))
    heads = nn.ModuleDict({"mean": nn.Linear(5, 1), "spread": nn.Linear(5, 2)})
    assert_parity(build(forward, layers=layers, heads=heads), normal(2, 5, 3), normal(6, 9, 3))


def test_one_module_called_twice() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        return self.block(self.block(x)) - self.block(1 - x)

    module = build(forward, block=Block(3, 4))
    assert_parity(module, normal(2, 5, 3), normal(6, 9, 3))
    kernels = [w for layer in nc.from_torch(module.float(), normal(2, 5, 3)).layers for k, w in layer.weights.items() if k == "kernel"]  # fmt: skip
    assert len({w.tobytes() for w in kernels}) == 1


def test_siamese_networks() -> None:
    def forward(self: Any, a: torch.Tensor, b: torch.Tensor) -> Any:
        left, right = self.rnn(a)[1][0][-1], self.rnn(b)[1][0][-1]
        return torch.exp(-torch.sum(torch.abs(left - right), dim=1, keepdim=True))

    module = build(forward, **lstm())
    example = (normal(2, 5, 3), normal(2, 6, 3, seed=1))
    others = [(normal(n, s, 3), normal(n, t, 3, seed=1)) for n, s, t in [(1, 4, 9), (5, 8, 8)]]
    assert_parity(module, example, *others)


def test_inputs_that_never_meet() -> None:
    module = build(lambda self, a, b: (self.rnn(a)[0][:, -1], self.rnn(b)[0]), **lstm())
    example = (normal(2, 5, 3), normal(2, 6, 3, seed=1))
    assert_parity(module, example, (normal(4, 3, 3), normal(4, 9, 3, seed=1)))


def test_weights_that_are_shared() -> None:
    def forward(self: Any, ids: torch.Tensor) -> Any:
        return self.decoder(self.rnn(self.encoder(ids))[0])

    module = build(
        forward, encoder=nn.Embedding(11, 6), rnn=nn.LSTM(6, 6, batch_first=True), decoder=nn.Linear(6, 11)
    )  # fmt: skip
    module.decoder.weight = module.encoder.weight
    assert_parity(module, whole(2, 5, below=11), whole(6, 9, below=11))


def test_modules_in_train_mode() -> None:
    module = nn.Sequential(Block(3, 4), nn.LSTM(3, 5, 2, batch_first=True, dropout=0.5), Last())
    randomise(module, 1)
    x = normal(6, 9, 3)
    expected = run(module, x)
    module.train()
    spec = nc.from_torch(module, normal(2, 5, 3))
    assert all(m.training for m in module.modules())
    for backend in BACKENDS:
        assert_close(predict(Model(spec, backend), x), expected, expected)


def test_examples_by_name() -> None:
    def forward(
        self: Any, x: torch.Tensor, *, h: torch.Tensor, c: torch.Tensor, scale: float = 2.0
    ) -> Any:
        return scale * self.rnn(x, (h, c))[0]

    def example(batch: int, steps: int) -> Any:
        states = {"h": normal(1, batch, 6), "c": normal(1, batch, 6, seed=1)}
        return {"x": normal(batch, steps, 3), **states}

    module = build(forward, **lstm())
    assert_parity(module, example(2, 5), example(1, 8), example(6, 9))
    model = Model(nc.from_torch(module.float(), example(2, 5)), "numpy")
    assert [t.name for t in model.inputs] == ["x", "h", "c"]
    by_name = {k: v.numpy() for k, v in example(4, 3).items()}
    np.testing.assert_array_equal(model.predict(by_name), model.predict(list(by_name.values())))


def test_examples_by_name_in_another_order() -> None:
    module = build(lambda self, a, b: self.rnn(a)[0] - 3 * self.rnn(b)[0], **lstm())
    a, b = normal(2, 5, 3), normal(2, 5, 3, seed=1)
    randomise(module, 0)
    (expected,) = run(module, (a, b))
    model = Model(nc.from_torch(module, {"b": b, "a": a}), "numpy")
    y = model.predict({"a": a.numpy(), "b": b.numpy()})
    np.testing.assert_allclose(y, expected, atol=1e-6, rtol=0)


def test_nested_arguments() -> None:
    def forward(self: Any, x: Any, state: Any, more: Any) -> Any:
        h, c = state
        y, after = self.rnn(x, (h, c))
        return y * more["gain"][0].unsqueeze(1), after

    def example(batch: int, steps: int) -> Any:
        state = (normal(1, batch, 6), normal(1, batch, 6, seed=1))
        return normal(batch, steps, 3), state, {"gain": [normal(batch, 6, seed=2)]}

    assert_parity(build(forward, **lstm()), example(2, 5), example(1, 8), example(6, 9))


def test_a_module_of_whole_numbers_and_others() -> None:
    def forward(self: Any, ids: torch.Tensor, x: torch.Tensor) -> Any:
        return self.rnn(torch.cat([self.words(ids), x], dim=-1))[1][-1]

    module = build(forward, words=nn.Embedding(7, 2), rnn=nn.GRU(5, 4, batch_first=True))

    def example(batch: int, steps: int) -> Any:
        return whole(batch, steps, below=7), normal(batch, steps, 3)

    assert_parity(module, example(2, 5), example(1, 8), example(6, 9))


def test_float64_without_weights() -> None:
    spec = nc.from_torch(build(lambda self, x: x / 3), normal(2, 5, 3).double())
    assert spec.dtype == "float64"
