"""The author's own outputs: when they prove a chain, when they leave others open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn

from npylstm import FormatError, Model, NpylstmError, ShapeError

Array = np.ndarray[Any, Any]


class Net(nn.Module):
    """A recurrent layer and two Linears; what is between them is in no file."""

    def __init__(self, between: Any = None, finish: Any = None, large: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.rnn = nn.LSTM(3, 6, batch_first=True)
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)
        with torch.no_grad():
            if large > 1:  # small inputs stay far from any bound, large ones do not
                for name in ("bias_ih_l0", "bias_hh_l0"):
                    getattr(self.rnn, name).zero_()
            self.a.weight.mul_(large)
            self.b.weight.mul_(large)
            self.b.bias.fill_(3.0)
        self.functions = [between or (lambda y: y), finish or (lambda y: y)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        between, finish = self.functions
        return finish(self.b(between(self.a(self.rnn(x)[0][:, -1]))))  # type: ignore[no-any-return]


def checked(net: nn.Module, chain: str, x: Array, folder: Path, **options: Any) -> nc.AuthorCheck:
    path = folder / "w.pt"
    torch.save(net.state_dict(), path)
    said = {"layers": chain, "batch_first": True, **options}
    spec = nc.from_torch(path, **said)
    with torch.no_grad():
        y = net.eval()(torch.from_numpy(x)).numpy()
    return nc.check_author(spec, path, {"input": x}, {spec.outputs[0]: y}, **said)


def noise(samples: int = 40, scale: float = 2.0, steps: int = 6) -> Array:
    return (scale * np.random.default_rng(0).normal(size=(samples, steps, 3))).astype("f4")


RIGHT = {
    "relu": (nn.ReLU(), "relu"),
    "gelu": (nn.GELU(), "gelu"),
    "leaky": (nn.LeakyReLU(0.2), "leaky_relu(0.2)"),
    "hard_tanh": (nn.Hardtanh(-0.1, 0.1), None),  # not a word of the language
    "nothing": (None, ""),
}


@pytest.mark.parametrize("name", RIGHT)
def test_many_samples_prove_the_right_chain_and_no_other(name: str, tmp_path: Path) -> None:
    module, word = RIGHT[name]
    middle = f" -> {word}" if word else ""
    found = checked(Net(module), f"rnn -> last -> a{middle} -> b", noise(), tmp_path)
    assert found.report.passed is (word is not None)
    assert found.agreeing == ()
    assert (found.spec.provenance["proof"] == "proven") is (word is not None)


# The author's module, the chain that was stated, and one that the outputs leave open.
OPEN: dict[str, tuple[Any, str, Array, str]] = {
    "one step": (Net(torch.relu), "rnn -> last -> a -> relu -> b", noise(steps=1), "rnn -> mean -> a -> relu -> b"),
    "small values": (Net(large=8), "rnn -> last -> a -> hard_tanh -> b", noise(scale=0.02), "rnn -> last -> a -> b"),
    "outputs above zero": (Net(finish=torch.relu, large=8), "rnn -> last -> a -> b -> relu", noise(scale=0.02), "rnn -> last -> a -> b"),
    "inputs above zero": (Net(), "rnn -> last -> a -> b", np.abs(noise()), "relu -> rnn -> last -> a -> b"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_what_the_outputs_leave_open_stays_stated(name: str, tmp_path: Path) -> None:
    net, chain, x, other = OPEN[name]
    found = checked(net, chain, x, tmp_path)
    assert found.report.passed
    assert found.report.proof == "stated"
    assert "proven" not in str(found.spec.provenance["proof"])
    assert any(f'"{other}"' in statement for statement in found.agreeing)
    assert found.spec.provenance["undecided"] == list(found.agreeing)
    assert "the engine agrees with the author's program for the chain" in found.report.verdict


def test_a_chain_is_not_proven_without_trying_others(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    net = Net(nn.ReLU())
    torch.save(net.state_dict(), path)
    spec = nc.from_torch(path, layers="rnn -> last -> a -> relu -> b", batch_first=True)
    x = noise()
    y = net(torch.from_numpy(x)).detach().numpy()
    with pytest.raises(NpylstmError, match="give the options that it was converted with"):
        nc.check_author(spec, path, {"input": x}, {"b": y})


def test_a_second_check_decides(tmp_path: Path) -> None:
    net, chain = Net(nn.ReLU()), "rnn -> last -> a -> relu -> b"
    weak = checked(net, chain, noise(steps=1), tmp_path)
    assert "undecided" in weak.spec.provenance
    said: Any = {"layers": chain, "batch_first": True}
    x = noise()
    y = net(torch.from_numpy(x)).detach().numpy()
    strong = nc.check_author(weak.spec, tmp_path / "w.pt", {"input": x}, {"b": y}, **said)
    assert strong.spec.provenance["proof"] == "proven"
    assert "undecided" not in strong.spec.provenance
    assert len(strong.spec.cases) == 2  # what was there stays


def test_arrays_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    module = nn.ModuleDict({"e": nn.Embedding(9, 4), "fc": nn.Linear(4, 2)})
    torch.save(module.state_dict(), path)
    said: Any = {"layers": "e(embedding) -> mean -> fc", "batch_first": True}
    spec = nc.from_torch(path, **said)
    name = spec.inputs[0].name
    ids, y = np.full((2, 3), 1.5), np.zeros((2, 2), "f4")
    with pytest.raises(FormatError, match="expected integer ids"):
        nc.check_author(spec, path, {name: ids}, {"fc": y}, **said)
    with pytest.raises(ShapeError, match=r"inputs: expected .*, got x"):
        nc.check_author(spec, path, {"x": ids}, {"fc": y}, **said)
    with pytest.raises(ShapeError, match="outputs: expected fc, got y"):
        nc.check_author(spec, path, {name: np.ones((2, 3))}, {"y": y}, **said)


@pytest.mark.parametrize("steps", [1, 6])
def test_weights_of_keras(steps: int, tmp_path: Path) -> None:
    """One step cannot tell the last from the mean, nor one direction from the other."""
    L = keras.layers
    model = keras.Sequential([keras.Input((steps, 3)), L.GRU(4), L.Dense(5, "relu"), L.Dense(2)])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    x = noise(60, steps=steps)
    said: Any = {"layers": "gru(last) -> dense(relu) -> dense_1"}
    spec = nc.from_keras(path, **said)
    y = np.asarray(model(x))
    inputs, outputs = {spec.inputs[0].name: x}, {spec.outputs[0]: y}
    found = nc.check_author(spec, path, inputs, outputs, **said)
    assert found.report.passed
    assert np.abs(Model(spec, "numpy").predict(x) - y).max() < 1e-5
    text = " ".join(found.agreeing)
    assert ("GlobalAveragePooling1D" in text) is (steps == 1)
    assert ("go_backwards=true" in text) is (steps == 1)
    wrong: Any = {"layers": "gru(last) -> dense -> dense_1"}
    failed = nc.check_author(nc.from_keras(path, **wrong), path, inputs, outputs, **wrong)
    assert not failed.report.passed
    assert any("dense(activation=relu)" in statement for statement in failed.agreeing)
