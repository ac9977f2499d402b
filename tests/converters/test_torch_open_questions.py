"""What a state_dict leaves open: asked by info, answered in its command, stated by whoever runs it."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.describing import describe
from torch import nn

import npylstm
from npylstm import UnsupportedError
from npylstm.cli import main

CONV = "stride=1, padding=0, dilation=1, groups=1"


def modules(**parts: nn.Module) -> nn.Module:
    return nn.ModuleDict(parts)


# A structure; the suggested chain, or the reason why there is none; what must be asked.
STRUCTURES: dict[str, tuple[Callable[[], nn.Module], str | None, str]] = {
    "gap": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)),
            "0 -> relu -> 2", "between 0 and 2: what is 1, without tensors? relu, tanh"),
    "two gaps": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2)),
                 "identity -> 1 -> relu -> 4", "between 1 and 4: what is 2 and 3, without"),
    "norm in a sequence": (lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2)),
                           "0 -> 1(eps=1e-5) -> relu -> 3 -> 4", "between 1 and 3: what is 2"),
    "list": (lambda: nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 1)]),
             "0 -> relu -> 1 -> relu -> 2", "between 0 and 1: is there an activation?"),
    "two layers, norm": (lambda: modules(lstm=nn.LSTM(3, 6, 2), bn=nn.BatchNorm1d(6), fc=nn.Linear(6, 1)),
                         "lstm -> last -> bn(eps=1e-5) -> fc", "what does bn read? last (the last step), hidden"),
    "head": (lambda: modules(lstm=nn.LSTM(3, 6), fc1=nn.Linear(6, 4), fc2=nn.Linear(4, 1)),
             "lstm -> last -> fc1 -> relu -> fc2", "between lstm and fc1: is there an activation?"),
    "norm over steps": (lambda: modules(a=nn.GRU(3, 6), bn=nn.BatchNorm1d(6), b=nn.GRU(6, 4)),
                        "a -> transpose -> bn(eps=1e-5) -> transpose -> b", "after b: what is the output?"),
    "ids": (lambda: modules(emb=nn.Embedding(30, 4), lstm=nn.LSTM(4, 6), fc=nn.Linear(6, 2)),
            "emb(embedding) -> lstm -> last -> fc", "input: which axis comes first? --batch-first: ids"),
    "few ids": (lambda: modules(emb=nn.Embedding(4, 6), gru=nn.GRU(6, 5), fc=nn.Linear(5, 2)),
                "emb(embedding) -> gru -> last -> fc", "emb: what is its kind? linear or embedding"),
    "ids and mean": (lambda: modules(emb=nn.Embedding(30, 4), fc=nn.Linear(4, 2)),
                     "emb(embedding) -> mean -> fc", "what does fc read?"),
    "convolution": (lambda: modules(c=nn.Conv1d(3, 4, 3), lstm=nn.LSTM(4, 6), fc=nn.Linear(6, 2)),
                    f"transpose -> c({CONV}) -> relu -> transpose -> lstm -> last -> fc", "which axes does lstm read?"),
    "convolutions": (lambda: modules(c=nn.Conv1d(3, 4, 3), b=nn.BatchNorm1d(4), d=nn.Conv1d(4, 5, 2), fc=nn.Linear(5, 2)),
                     f"c({CONV}) -> b(eps=1e-5) -> relu -> d({CONV}) -> relu -> transpose -> mean -> fc",
                     "c: what is its stride, padding, dilation, groups? stride=1"),
    "both ways": (lambda: modules(lstm=nn.LSTM(3, 6, bidirectional=True), fc=nn.Linear(12, 2)),
                  "lstm -> last -> fc", "hidden (the final hidden state)"),
    "rnn": (lambda: modules(rnn=nn.RNN(3, 6), ln=nn.LayerNorm(6), fc=nn.Linear(6, 2)),
            "rnn(tanh) -> last -> ln(eps=1e-5) -> fc", "ln: is it a LayerNorm? A GroupNorm has the same"),
    "cells": (lambda: modules(a=nn.LSTMCell(3, 6), b=nn.GRUCell(6, 5), fc=nn.Linear(5, 2)),
              "a -> b -> last -> fc", "what does b read? no word: every step"),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 5), nn.PReLU(5), nn.Linear(5, 2)),
              "0 -> 1 -> 2", "1: is it a PReLU? A RMSNorm has the same"),
    "no bias": (lambda: modules(lstm=nn.GRU(3, 6, bias=False), fc=nn.Linear(6, 2, bias=False)),
                "lstm -> last -> fc(linear)", "fc: what is its kind?"),
    "alone": (lambda: nn.LSTM(3, 4), "model", "after model: what is the output?"),
    "shell": (lambda: modules(**{"a`id`": nn.Linear(3, 4), "$b": nn.Linear(4, 1)}),
              "a`id` -> relu -> $b", "between a`id` and $b"),
    "wrong order": (lambda: modules(fc=nn.Linear(6, 2), lstm=nn.LSTM(3, 6)), None, "lstm: expected 3 features"),
    "two heads": (lambda: modules(lstm=nn.LSTM(3, 8), mu=nn.Linear(8, 1), sigma=nn.Linear(8, 1)),
                  None, "sigma: expected 8 features"),
    "attention": (lambda: modules(lstm=nn.LSTM(3, 8), att=nn.MultiheadAttention(8, 2), fc=nn.Linear(8, 2)),
                  None, "att: is a ?(in_proj_weight"),
    "flattened": (lambda: modules(c=nn.Conv1d(3, 4, 3), fc=nn.Linear(40, 2)), None, "fc: expected 40 features"),
    "spaces": (lambda: modules(**{"my net": nn.Linear(3, 4)}), None, "expected a name or name(options)"),
}  # fmt: skip


def run(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_command_of_info(name: str, tmp_path: Path, capsys: Any) -> None:
    build, chain, asked = STRUCTURES[name]
    path = tmp_path / "w.pt"
    torch.save(build().state_dict(), path)
    status, out, _ = run(capsys, "info", path)
    assert status == 0
    assert asked in out
    *_, last = out.splitlines()
    if chain is None:
        assert "npylstm convert" not in out
        assert last.endswith("from_torch(module, example)")
        return
    words = shlex.split(last)
    assert words[:4] == ["npylstm", "convert", str(path), "MODEL.npz"]
    assert words[words.index("--layers") + 1] == chain
    assert ("`" in chain) == ("--layers '" in last)  # what a shell would run is quoted
    target = tmp_path / "m.npz"
    status, out, err = run(capsys, "convert", path, target, *words[4:], "--record", 1)
    assert (status, err.count("error")) == (0, 0)
    assert "stated, not proven:" in out
    assert "parity held" not in out
    assert "is not proven: give --check-input/--check-output, or use from_torch(module)" in out
    assert npylstm.load(target).spec.provenance["proof"] == "stated"


def test_every_open_question_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    net = modules(
        rnn=nn.RNN(3, 6), ln=nn.LayerNorm(6), a=nn.Linear(6, 4), b=nn.Linear(4, 2)
    )  # fmt: skip
    torch.save(net.state_dict(), path)
    chain = "rnn(relu) -> hidden -> ln(eps=1e-6) -> a -> relu -> dropout -> b -> softmax"
    spec = nc.from_torch(path, layers=chain, batch_first=False)
    assert spec.provenance["proof"] == "stated"
    assert spec.provenance["stated"] == [
        "inputs are (steps, batch, features)",
        "rnn has nonlinearity relu",
        "ln reads the final hidden state of rnn",
        "between rnn and ln there is no activation",
        "ln is a LayerNorm, not a GroupNorm",
        "ln has eps 1e-6",
        "between ln and a there is no activation",
        "between a and b, relu is applied",
        "the output is that of b, to which softmax is applied",
    ]
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).state_dict(), path)
    spec = nc.from_torch(path, layers="0 -> 2", allow_unused=[])
    assert "between 0 and 2, at 1, there is no activation" in spec.provenance["stated"]


def test_what_nobody_stated_is_assumed(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    net = modules(emb=nn.Embedding(9, 4), fc=nn.Linear(4, 2))
    torch.save(net.state_dict(), path)
    chain = "emb(embedding) -> mean -> leaky_relu -> fc"
    spec = nc.from_torch(path, layers=chain)
    assert spec.provenance["proof"] == "assumed"
    assert spec.provenance["stated"][:2] == [
        "assumed: inputs are ids (batch, steps)", "assumed: leaky_relu has negative_slope 0.01",
    ]  # fmt: skip
    ids = np.random.default_rng(0).integers(0, 9, (3, 5))
    with torch.no_grad():
        pooled = nn.functional.leaky_relu(net["emb"](torch.from_numpy(ids)).mean(1))
        want = net["fc"](pooled).numpy()
    np.testing.assert_allclose(npylstm.Model(spec).predict(ids), want, rtol=0, atol=1e-6)
    stated = nc.from_torch(path, layers=chain.replace("relu", "relu(0.01)"), batch_first=True)
    assert stated.provenance["proof"] == "stated"
    report = npylstm.Model(nc.record(spec, lambda x: npylstm.Model(spec).predict(x), 2)).verify()
    assert report.proof == report.to_json()["proof"] == "assumed"
    assert "and for what was assumed; whether the chain" in report.verdict


def test_lora_factors_are_refused(tmp_path: Path, capsys: Any) -> None:
    """As peft and loralib name them; the way out is never to leave them over."""
    base = nn.Linear(3, 2).state_dict()
    a, b = torch.ones(1, 3), torch.ones(2, 1)
    peft = {f"model.fc.base_layer.{k}": v for k, v in base.items()}
    peft |= {"model.fc.lora_A.default.weight": a, "model.fc.lora_B.default.weight": b}
    loralib = {f"fc.{k}": v for k, v in base.items()} | {"fc.lora_A": a, "fc.lora_B": b}
    for state, name in ((peft, "model.fc.base_layer"), (loralib, "fc")):
        torch.save(state, tmp_path / "w.pt")
        unused = [key for key in state if "lora" in key]
        with pytest.raises(UnsupportedError, match=r"LoRA .*merge_and_unload") as caught:
            nc.from_torch(tmp_path / "w.pt", layers=name, allow_unused=unused)
        assert "allow" not in str(caught.value)
        status, out, _ = run(capsys, "info", tmp_path / "w.pt")
        assert status == 0
        assert "merge_and_unload" in out
        assert "npylstm convert" not in out


class Net(nn.Module):
    """Whose forward has a relu that no file shows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.relu(self.lstm(x)[0][:, -1]))


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, and what the author's own program gives."""
    folder = tmp_path_factory.mktemp("author")
    torch.manual_seed(4)
    net = Net().eval()
    x = torch.randn(5, 7, 3)
    torch.save(net.state_dict(), folder / "w.pt")
    np.save(folder / "x.npy", x.numpy())
    with torch.no_grad():
        np.save(folder / "y.npy", net(x).numpy())
    return folder


def check(folder: Path, chain: str) -> list[object]:
    return ["--layers", chain, "--batch-first", "--check-input", folder / "x.npy",
            "--check-output", folder / "y.npy", "--record", 2]  # fmt: skip


def test_the_authors_numbers_prove_a_chain(author: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "m.npz"
    right = check(author, "lstm -> last -> relu -> fc")
    status, out, _ = run(capsys, "convert", author / "w.pt", target, *right)
    assert status == 0
    assert "stated, and proven by the author's outputs:" in out
    assert "parity held" in out
    spec = npylstm.load(target).spec
    assert spec.provenance["proof"] == "proven"
    assert "between lstm and fc, relu is applied" in spec.provenance["stated"]
    assert [case.purpose for case in spec.cases].count("author") == 1
    status, out, _ = run(capsys, "verify", target, "--json")
    assert status == 0
    assert json.loads(out)["proof"] == "proven"


def test_the_authors_numbers_in_python(author: Path) -> None:
    inputs, outputs = {"input": np.load(author / "x.npy")}, {"fc": np.load(author / "y.npy")}
    checks = []
    for chain in ("lstm -> last -> relu -> fc", "lstm -> last -> fc"):
        said: dict[str, Any] = {"layers": chain, "batch_first": True}
        spec = nc.from_torch(author / "w.pt", **said)
        checks.append(nc.check_author(spec, author / "w.pt", inputs, outputs, **said))
    assert [(c.report.passed, c.report.proof) for c in checks] == [(True, "proven"), (False, "stated")]  # fmt: skip
    assert [c.spec.provenance["proof"] for c in checks] == ["proven", "stated"]
    assert checks[0].report.verdict.startswith("parity held: 1 recorded case against the author")
    assert checks[1].report.verdict.startswith("parity FAILED")
    assert checks[0].agreeing == ()
    assert '--layers "lstm -> last -> relu -> fc" --batch-first' in checks[1].agreeing


def test_one_sample_may_not_decide_for_a_chain(author: Path, tmp_path: Path, capsys: Any) -> None:
    """The units that are negative are few, and here none: relu or no relu give one output."""
    state = torch.load(author / "w.pt")
    state["lstm.bias_ih_l0"][-8:] += 5  # output gates open
    state["lstm.bias_ih_l0"][16:24] += 5  # candidates positive
    net = Net().eval()
    net.load_state_dict(state)
    x = torch.zeros(1, 7, 3)
    torch.save(state, tmp_path / "w.pt")
    np.save(tmp_path / "x.npy", x.numpy())
    with torch.no_grad():
        np.save(tmp_path / "y.npy", net(x).numpy())
    for chain, other in itertools.permutations(
        ["lstm -> last -> relu -> fc", "lstm -> last -> fc"]
    ):
        target = tmp_path / "m.npz"
        status, out, _ = run(
            capsys, "convert", tmp_path / "w.pt", target, *check(tmp_path, chain), "--force"
        )
        assert status == 0
        assert "stated, not proven:" in out
        assert f'--layers "{other}" --batch-first' in out
        assert "the author's outputs do not decide" in out
        assert "with more, and more different, samples" in out
        report = npylstm.load(target).verify()
        assert report.passed
        assert report.proof == "stated"
        assert any(other in statement for statement in report.undecided)
        status, out, _ = run(capsys, "info", "--proof", target)
        assert "do not decide" in " ".join(out.split())


def test_the_authors_numbers_disprove_a_chain(author: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "m.npz"
    wrong = check(author, "lstm -> last -> fc")
    status, out, _ = run(capsys, "convert", author / "w.pt", target, *wrong)
    assert status == 1
    assert "parity FAILED: output 'fc'" in out
    assert "fact: " in out  # the diagnosis
    assert 'these give the author\'s outputs:\n  --layers "lstm -> last -> relu -> fc"' in out
    assert "not written; give --force" in out
    assert not target.exists()
    status, out, _ = run(capsys, "convert", author / "w.pt", target, *wrong, "--json")
    assert status == 1
    document = json.loads(out)
    assert document["parity"]["passed"] is False
    assert document["parity"]["diagnosis"] is not None
    assert document["agreeing"] == ['--layers "lstm -> last -> relu -> fc" --batch-first']
    status, out, _ = run(capsys, "convert", author / "w.pt", target, *wrong, "--force")
    assert status == 1
    assert npylstm.load(target).spec.provenance["proof"] == "stated"
    assert run(capsys, "verify", target)[0] == 1
    status, _, err = run(capsys, "convert", author / "w.pt", target, *wrong[:5])
    assert status == 2
    assert "--check-input and --check-output go together" in err


def test_a_file_of_before_is_stated(author: Path) -> None:
    """Versions that knew no proof told of the chain among their decisions."""
    spec = nc.from_torch(author / "w.pt", layers="lstm -> last -> fc", batch_first=True)
    origin = {k: v for k, v in spec.provenance.items() if k not in ("proof", "stated")}
    origin["decisions"] = ["layers: lstm -> last -> fc, as told", "batch_first: True, as told"]
    old = npylstm.ModelSpec(
        spec.layers, spec.edges, spec.inputs, spec.outputs, provenance=origin, dtype=spec.dtype
    )
    recorded = nc.record(old, lambda x: npylstm.Model(spec).predict(x), cases=2)
    report = npylstm.Model(recorded).verify()
    assert report.passed
    assert report.proof == "stated"
    assert "not proven" in report.verdict


def test_what_a_source_says_is_proven() -> None:
    spec = nc.from_torch(Net().eval(), torch.zeros(2, 5, 3))
    assert spec.provenance["proof"] == "proven"
    assert not spec.provenance.get("stated")


def test_the_parts_of_a_pickled_module(tmp_path: Path) -> None:
    """Its classes are never imported; what they hold is shown all the same."""
    net = modules(lstm=nn.LSTM(3, 8, batch_first=True),
                  net=nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.LayerNorm(4)))  # fmt: skip
    for zipped in (True, False):
        torch.save({"model": net, "epoch": 3}, tmp_path / "m.pt",
                   _use_new_zipfile_serialization=zipped)  # fmt: skip
        found = describe(tmp_path / "m.pt")
        assert found["modules"] == [
            "lstm: LSTM(3 -> 8), batch_first=True", "net.0: Linear(8 -> 4)", "net.1: ReLU()",
            "net.2: LayerNorm(4), eps=1e-05",
        ]  # fmt: skip
        assert 'layers "lstm -> last -> net.0 -> net.1 -> net.2"' in found["command"]
