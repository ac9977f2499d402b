"""The words of a chain: each computes what the line of a forward computes in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.describing import describe
from npylstm_converters.torch.runner import TorchRunner
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it

from npylstm import Model, UnsupportedError


def modules() -> nn.ModuleDict:
    """Modules of many sizes; a case saves those that it uses."""
    torch.manual_seed(0)
    made = nn.ModuleDict(
        {
            "rnn": nn.LSTM(3, 8, batch_first=True), "gru": nn.GRU(8, 8, batch_first=True),
            "both": nn.GRU(3, 4, batch_first=True, bidirectional=True), "first": nn.LSTM(3, 8),
            "dec": nn.LSTM(8, 8, batch_first=True), "late": nn.LSTM(8, 8), "cell": nn.LSTMCell(3, 8),
            "att": nn.Linear(8, 1), "deep": nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1, bias=False)),
            "conv": nn.Conv1d(3, 8, 3), "narrow": nn.Conv1d(3, 4, 1), "same": nn.Linear(8, 8), "fc": nn.Linear(8, 2),
            "wide": nn.Linear(16, 2), "skip": nn.Linear(11, 2), "emb": nn.Embedding(9, 3),
        }
    )  # fmt: skip
    for parameter in made.parameters():
        parameter.data.uniform_(-0.6, 0.6)
    return made.eval()


def cell_loop(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = c = x.new_zeros(x.shape[0], 8)
    for t in range(x.shape[1]):
        h, c = m.cell(x[:, t], (h, c))
    return m.fc(h)


def attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    y, _ = m.rnn(x)
    return m.fc((torch.softmax(m.att(y), 1) * y).sum(1))


def deep_attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    y, _ = m.rnn(x)
    return m.fc(torch.sum(F.softmax(m.deep(y), dim=1) * y, dim=1))


def autoencoder(m: Any, x: torch.Tensor) -> torch.Tensor:
    _, (h, _) = m.rnn(x)
    return m.fc(m.dec(h[-1].unsqueeze(1).repeat(1, 7, 1))[0])


def autoencoder_of_steps(m: Any, x: torch.Tensor) -> torch.Tensor:
    _, (h, _) = m.rnn(x)
    return m.fc(m.dec(h[-1].unsqueeze(1).expand(-1, x.shape[1], -1))[0])


def autoencoder_sequence_first(m: Any, x: torch.Tensor) -> torch.Tensor:
    _, (h, _) = m.first(x)
    return m.fc(m.late(h[-1].unsqueeze(0).repeat(7, 1, 1))[0])


CHAINS: dict[str, tuple[str, str, bool, Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "cell": ("cell fc", "cell -> last -> fc", True, cell_loop),
    "attention": ("rnn att fc", "rnn -> attention(att) -> fc", True, attention),
    "deep attention": ("rnn deep fc", "rnn -> attention(deep.0, tanh, deep.2) -> fc", True, deep_attention),
    "attention over the first axis": (
        "first att fc", "first -> attention(att) -> fc", False,
        lambda m, x: m.fc((torch.softmax(m.att(m.first(x)[0]), 0) * m.first(x)[0]).sum(0))),
    "repeat": ("rnn dec fc", "rnn -> hidden -> repeat(7) -> dec -> fc", True, autoencoder),
    "repeat to the input's steps": ("rnn dec fc", "rnn -> hidden -> repeat -> dec -> fc", True, autoencoder_of_steps),
    "repeat, sequence first": (
        "first late fc", "first -> hidden -> repeat(7) -> late -> fc", False, autoencoder_sequence_first),
    "last of a repeated vector": (
        "rnn dec fc", "rnn -> hidden -> repeat(7) -> dec -> last -> fc", True, lambda m, x: autoencoder(m, x)[:, -1]),
    "two poolings": (
        "rnn wide", "rnn -> concat(mean, max) -> wide", True,
        lambda m, x: m.wide(torch.cat([m.rnn(x)[0].mean(1), m.rnn(x)[0].amax(1)], 1))),
    "hidden and attention": (
        "both wide", "both -> concat(hidden, last) -> wide", True,
        lambda m, x: m.wide(torch.cat([*m.both(x)[1], m.both(x)[0][:, -1]], 1))),
    "parallel layers": (
        "rnn both wide", "concat(rnn, both) -> last -> wide", True,
        lambda m, x: m.wide(torch.cat([m.rnn(x)[0], m.both(x)[0]], 2)[:, -1])),
    "features beside": (
        "rnn skip", "rnn -> concat(identity, input) -> skip", True,
        lambda m, x: m.skip(torch.cat([m.rnn(x)[0], x], -1))),
    "channels beside": (
        "conv narrow gru fc", "transpose -> conv(stride=1, padding=0, dilation=1, groups=1) -> relu -> max_pool(2, "
        "stride=1) -> transpose -> gru -> mean -> fc", True,
        lambda m, x: m.fc(m.gru(F.max_pool1d(F.relu(m.conv(x.transpose(1, 2))), 2, 1).transpose(1, 2))[0].mean(1))),
    "skip": ("rnn same fc", "rnn -> same -> relu -> add(rnn) -> fc -> last", True,
             lambda m, x: m.fc(F.relu(m.same(m.rnn(x)[0])) + m.rnn(x)[0])[:, -1]),
    "residual": ("rnn gru fc", "rnn -> gru -> add(rnn) -> last -> fc", True,
                 lambda m, x: m.fc((m.gru(m.rnn(x)[0])[0] + m.rnn(x)[0])[:, -1])),
    "causal": (
        "conv gru fc", "transpose -> pad(4, 0) -> conv(stride=1, padding=0, dilation=2, groups=1) -> transpose -> gru "
        "-> sum -> fc", True,
        lambda m, x: m.fc(m.gru(F.conv1d(F.pad(x.transpose(1, 2), (4, 0)), m.conv.weight, m.conv.bias,
                                         dilation=2).transpose(1, 2))[0].sum(1))),
    "padded steps": ("rnn fc", "pad(1, 2) -> rnn -> mean -> fc", True,
                     lambda m, x: m.fc(m.rnn(F.pad(x, (0, 0, 1, 2)))[0].mean(1))),
    "average": (
        "conv fc", "conv(stride=1, padding=1, dilation=1, groups=1) -> avg_pool(3, padding=1) -> max -> fc", True,
        lambda m, x: m.fc(F.avg_pool1d(F.conv1d(x, m.conv.weight, m.conv.bias, padding=1), 3, padding=1).amax(2))),
    "softmax over the steps": ("rnn fc", "rnn -> fc -> softmax(dim=1)", True, lambda m, x: F.softmax(m.fc(m.rnn(x)[0]), 1)),
}  # fmt: skip


def saved(names: str, path: Path) -> nn.ModuleDict:
    used = modules()
    torch.save(nn.ModuleDict({k: used[k] for k in names.split()}).state_dict(), path)
    return used


@pytest.mark.parametrize("name", CHAINS)
def test_a_word_equals_the_line_of_a_forward(name: str, tmp_path: Path, backend: str) -> None:
    names, chain, batch_first, forward = CHAINS[name]
    used = saved(names, tmp_path / "w.pt")
    allowed = ["narrow"] if "narrow" in names else None
    options = {"layers": chain, "batch_first": batch_first, "allow_unused": allowed}
    spec = nc.from_torch(tmp_path / "w.pt", **options)
    model = Model(spec, backend)
    for size in ((2, 9, 3), (5, 4, 3)):
        x = np.random.default_rng(0).normal(size=size).astype(np.float32)
        x = x.transpose(0, 2, 1).copy() if chain.startswith("conv(") else x
        with torch.no_grad():
            expected = forward(used, torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=2e-6)
    Model(
        nc.record(spec, TorchRunner(tmp_path / "w.pt", spec, **options)), backend
    ).verify().check()


REFUSED = {
    "repeat of a sequence": ("rnn fc", "rnn -> repeat(3) -> fc", r"repeat: expected .batch, features., the tensor"),
    "repeat of nothing": ("rnn fc", "rnn -> last -> repeat(x) -> fc", "repeat: expected an integer, got 'x'"),
    "repeat twice": ("rnn fc", "rnn -> last -> repeat(3, 4) -> fc", r"repeat.n., or repeat for as many steps"),
    "attention alone": ("rnn fc", "rnn -> attention -> fc", "attention: expected attention.module."),
    "several scores": ("rnn same fc", "rnn -> attention(same) -> fc", "expected one score for each step, got"),
    "attention of a vector": ("rnn att fc", "rnn -> last -> attention(att) -> fc", "attention: expected a sequence"),
    "one part": ("rnn fc", "rnn -> concat(last) -> fc", "concat: expected 2 or more names of modules or words"),
    "unknown part": ("rnn fc", "rnn -> concat(last, first) -> fc", "first: is no module|concat: is no module"),
    "other sizes": ("rnn fc", "rnn -> last -> fc -> add(rnn)", "add: expected equal shapes, got"),
    "pad in one number": ("rnn fc", "rnn -> pad(3) -> last -> fc", "pad: expected pad.before, after."),
    "pool of features": ("rnn fc", "rnn -> max_pool(2) -> last -> fc", "max_pool: expected .batch, channels, steps."),
    "pool of nothing": ("rnn fc", "rnn -> max_pool -> last -> fc", r"max_pool.size, stride=size, padding=0."),
    "softmax over the batch": ("rnn fc", "rnn -> last -> fc -> softmax(dim=0)", "samples"),
    "axis out of range": ("rnn fc", "rnn -> last -> fc -> softmax(dim=2)", "dim: expected an axis of .batch, 2., got 2"),
    "hidden of two": ("rnn both wide", "concat(rnn, both) -> hidden -> wide", "hidden: there is no recurrent module"),
    "missing": ("rnn same fc", "rnn -> last", r"same: Linear.8 -> 8.: is not in layers.*fc: Linear.8 -> 2.: is not"),
    "missing between": ("rnn same wide", "rnn -> last -> wide", r"wide: .*16.*; the chain leaves out same: Linear.8 -> 8."),
    "beyond": ("rnn fc", "rnn -> bahdanau -> fc", r"no word .last.*from_torch.module, example."),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_chain_cannot_say_is_refused(name: str, tmp_path: Path) -> None:
    names, chain, message = REFUSED[name]
    saved(names, tmp_path / "w.pt")
    with pytest.raises(UnsupportedError, match=message):
        nc.from_torch(tmp_path / "w.pt", layers=chain, batch_first=True)


def test_statements_name_the_words(tmp_path: Path) -> None:
    saved("rnn att fc", tmp_path / "w.pt")
    spec = nc.from_torch(tmp_path / "w.pt", layers="rnn -> attention(att) -> fc", batch_first=True)
    assert "between rnn and fc, attention(att) is applied" in spec.provenance["stated"]
    assert {entry["source"] for entry in spec.provenance["tensors"]} >= {"att.weight", "att.bias"}


def test_an_activation_fills_a_gap(tmp_path: Path) -> None:
    """The number that is missing between two Linear layers is most likely an activation."""
    torch.save(
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict(), tmp_path / "w.pt"
    )
    found = describe(tmp_path / "w.pt")
    assert '"0 -> relu -> 2"' in found["command"]


def test_a_chain_over_features_may_have_steps(tmp_path: Path) -> None:
    saved("same fc", tmp_path / "w.pt")
    chain = "same -> relu -> fc"
    assert nc.from_torch(tmp_path / "w.pt", layers=chain).inputs[0].shape == ("batch", 8)
    spec = nc.from_torch(tmp_path / "w.pt", layers=chain, batch_first=True)
    assert spec.inputs[0].shape == ("batch", "steps", 8)


SUGGESTED = {
    "attention": ({"rnn": nn.LSTM(3, 8), "attention": nn.Linear(8, 1, bias=False), "fc": nn.Linear(8, 2)},
                  "rnn -> attention(attention) -> fc"),
    "autoencoder": ({"encoder": nn.LSTM(3, 8), "decoder": nn.LSTM(8, 8), "fc": nn.Linear(8, 3)},
                    "encoder -> hidden -> repeat -> decoder -> last -> fc"),
    "a stack": ({"a": nn.LSTM(3, 8), "b": nn.LSTM(8, 8), "score": nn.Linear(8, 1)}, "a -> b -> last -> score"),
    "loss": ({"rnn": nn.LSTM(3, 8), "fc": nn.Linear(8, 2), "loss_fn": nn.CrossEntropyLoss(torch.ones(2))},
             "rnn -> last -> fc"),
}  # fmt: skip


@pytest.mark.parametrize("name", SUGGESTED)
def test_the_suggested_chain(name: str, tmp_path: Path) -> None:
    parts, chain = SUGGESTED[name]
    torch.save(nn.ModuleDict(parts).state_dict(), tmp_path / "w.pt")
    found = describe(tmp_path / "w.pt")
    assert f'"{chain}" --batch-first' in found["command"]
    assert found["command"].endswith("--allow-unused loss_fn") == (name == "loss")
