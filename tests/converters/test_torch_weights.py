"""State_dicts: modules told from names and shapes, joined as the user says, nothing guessed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.toolkit.chain import parse_steps
from npylstm_converters.torch.describing import describe
from npylstm_converters.torch.files import read_checkpoint
from npylstm_converters.torch.modules import find_modules
from npylstm_converters.torch.runner import TorchRunner
from torch import nn

from npylstm import Model, NpylstmError, UnsupportedError
from npylstm.cli import main


def save(path: Path, **modules: nn.Module) -> Path:
    torch.manual_seed(0)
    for module in modules.values():
        for parameter in module.parameters():
            parameter.data.uniform_(-0.6, 0.6)
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2)
    torch.save(nn.ModuleDict(modules).state_dict(), path)
    return path


def everything(path: Path) -> Path:
    return save(
        path,
        emb=nn.Embedding(11, 4), conv=nn.Conv1d(4, 6, 3, padding=1), bn=nn.BatchNorm1d(6),
        act=nn.PReLU(), rnn=nn.LSTM(6, 5, 2, bidirectional=True, proj_size=3),
        gru=nn.GRU(6, 4, bias=False), elman=nn.RNN(4, 4, nonlinearity="relu"),
        norm=nn.LayerNorm(4), fc=nn.Linear(4, 3), free=nn.Linear(3, 2, bias=False),
    )  # fmt: skip


CHAIN = (
    "emb(embedding) -> transpose -> conv(stride=1, padding=1, dilation=1, groups=1) -> bn(eps=1e-5) "
    "-> act -> transpose -> rnn -> gru -> elman(relu) -> norm(eps=1e-5) -> last -> fc -> "
    "leaky_relu(0.2) -> dropout -> free(linear) -> softmax"
)


def test_modules_are_told_from_their_tensors(tmp_path: Path) -> None:
    found = describe(everything(tmp_path / "all.pt"))
    assert found["modules"] == [
        "emb: Linear or Embedding(4 -> 11, no bias, or 11 ids -> 4)",
        "conv: Conv1d(4 -> 6, kernel 3)",
        "bn: BatchNorm1d(6)",
        "act: PReLU(1)",
        "rnn: LSTM(6 -> 5, 2 layers, bidirectional, projection 3)",
        "gru: GRU(6 -> 4, no bias)",
        "elman: RNN(4 -> 4)",
        "norm: LayerNorm(4)",
        "fc: Linear(4 -> 3)",
        "free: Linear or Embedding(3 -> 2, no bias, or 2 ids -> 3)",
    ]
    assert "conv(stride=1, padding=0, dilation=1, groups=1)" in found["command"]
    assert "elman(tanh)" in found["command"]


def test_a_chain_of_everything_equals_torch(tmp_path: Path, backend: str) -> None:
    path = everything(tmp_path / "all.pt")
    spec = nc.from_torch(path, layers=CHAIN, batch_first=True)
    assert spec.inputs[0].whole
    runner = TorchRunner(path, spec, layers=CHAIN, batch_first=True)
    report = Model(nc.record(spec, runner), backend).verify()
    report.check()
    assert report.cases >= 8


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("end", ["last", "hidden", "mean", "max", "flatten", "dropout"])
def test_recurrent_chains_equal_torch_from_given_states(
    kind: str, batch_first: bool, both: bool, end: str, tmp_path: Path
) -> None:
    module = getattr(nn, kind)(3, 4, 2, bidirectional=both)
    path = save(tmp_path / "w.pt", rnn=module, fc=nn.Linear(8 if both else 4, 2))
    chain = f"rnn{'(tanh)' if kind == 'RNN' else ''} -> {end} -> fc"
    if end == "flatten":
        if not batch_first:
            with pytest.raises(
                UnsupportedError, match="flatten: expected the batch as the first axis"
            ):
                nc.from_torch(path, layers=chain, batch_first=False)
            return
        chain = chain.removesuffix(" -> fc").removesuffix(" -> flatten") + " -> fc -> flatten"
    spec = nc.from_torch(path, layers=chain, batch_first=batch_first)
    runner = TorchRunner(path, spec, layers=chain, batch_first=batch_first)
    recorded = nc.record(spec, runner)
    assert any(case.state for case in recorded.cases)
    Model(recorded, "numpy").verify().check()


@pytest.mark.parametrize(
    ("module", "chain", "batch_first"),
    [
        (nn.LSTM(3, 4), "model", True),
        (nn.Linear(3, 4), "model -> tanh", None),
        (nn.Linear(3, 4), "model -> gelu", None),
        (nn.Conv1d(3, 4, 2, bias=False), "model(stride=2, padding=1, dilation=1, groups=1)", None),
        (nn.BatchNorm1d(3, affine=False), "model(eps=1e-3)", None),
    ],
)  # fmt: skip
def test_a_module_saved_by_itself(
    module: nn.Module, chain: str, batch_first: bool | None, tmp_path: Path
) -> None:
    torch.save(module.state_dict(), tmp_path / "w.pt")
    spec = nc.from_torch(tmp_path / "w.pt", layers=chain, batch_first=batch_first)
    runner = TorchRunner(tmp_path / "w.pt", spec, layers=chain, batch_first=batch_first)
    Model(nc.record(spec, runner), "numpy").verify().check()


@pytest.mark.parametrize(
    ("chain", "batch_first", "message"),
    [
        (None, True, r"A state_dict does not store how they are joined: `npylstm info .*all.pt` shows"),
        (CHAIN, None, "batch_first is not in a state_dict: state --batch-first or --sequence-first"),
        (CHAIN.replace("elman(relu)", "elman"), True, r"elman: its nonlinearity is not in a state_dict: write elman\(tanh\) or"),
        (CHAIN.replace("emb(embedding)", "emb"), True, r"emb may be a Linear|may be a Linear without bias or an Embedding: write emb\(linear\)"),
        (CHAIN.replace("bn(eps=1e-5)", "bn"), True, r"bn: its eps is not in a state_dict: write bn\(eps=1e-5\)"),
        (CHAIN.replace("padding=1, ", ""), True, "its padding is not in a state_dict"),
        (CHAIN.replace("padding=1", "padding=x"), True, "padding: expected an integer, got 'x'"),
        (CHAIN.replace(" -> fc", ""), True, r"free: expected 3 features"),
        (CHAIN.replace(" -> norm(eps=1e-5)", ""), True, r"norm: LayerNorm\(4\): is not in layers, and nothing may be left over"),
        (CHAIN.replace("last", "latest"), True, r"latest: is no module \(emb, conv, .*\) and no word \(last, hidden"),
        (CHAIN.replace("leaky_relu(0.2)", "leaky_relu(0.2, 3)"), True, "leaky_relu: expected negative_slope, got leaky_relu.0.2, 3."),
        (CHAIN.replace("leaky_relu(0.2)", "tanh(0.2)"), True, "tanh: expected no options, got tanh.0.2."),
        (CHAIN.replace("leaky_relu(0.2)", "leaky_relu(x)"), True, "leaky_relu: negative_slope: expected a number, got 'x'"),
        (CHAIN.replace("leaky_relu(0.2)", "leaky_relu(alpha=0.2)"), True, "leaky_relu: expected negative_slope, got"),
        (CHAIN.replace("-> last ->", "-> last(2) ->"), True, "last: takes no options, got last.2."),
        (CHAIN.replace("-> transpose -> rnn", "-> transpose(0, 2) -> rnn"), True, "transpose: expected transpose, "),
        (CHAIN.replace("-> fc ->", "-> fc(relu) ->"), True, "fc: is a Linear, whose options are none; got relu. An activation is a separate word"),
        (CHAIN.replace("groups=1", "groups=1, padding_mode=circular"), True, "conv: is a Conv1d, .*got padding_mode=circular"),
        (CHAIN.replace("-> rnn ->", "-> rnn(tanh) ->"), True, "rnn: is a LSTM, whose options are none; got tanh"),
        (CHAIN.replace("-> last ->", "-> last -> last ->"), True, "last: expected a sequence, the tensor here is"),
        ("relu -> tanh", True, "names no module that has weights"),
    ],
)  # fmt: skip
def test_what_is_not_said_is_asked(
    chain: str | None, batch_first: bool | None, message: str, tmp_path: Path
) -> None:
    path = everything(tmp_path / "all.pt")
    with pytest.raises(UnsupportedError, match=message):
        nc.from_torch(path, layers=chain, batch_first=batch_first)


def test_what_may_be_left_over_is_allowed_by_name(tmp_path: Path) -> None:
    """As in speaker encoders, whose training has weights of its own."""
    state = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "linear": nn.Linear(4, 4)}).state_dict()
    extra = {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    torch.save({"model_state": {**extra, **state}}, tmp_path / "w.pt")
    chain = {"layers": "lstm -> hidden -> linear -> relu -> normalize", "batch_first": True}
    with pytest.raises(UnsupportedError, match=r"allowed by name .--allow-unused model"):
        nc.from_torch(tmp_path / "w.pt", **chain)
    for names in (["model"], ["similarity_weight", "similarity_bias"]):
        spec = nc.from_torch(tmp_path / "w.pt", allow_unused=names, **chain)
        runner = TorchRunner(tmp_path / "w.pt", spec, allow_unused=names, **chain)
        Model(nc.record(spec, runner), "numpy").verify().check()
        assert f"{names[0]}: left over, as allowed" in spec.provenance["decisions"]
    with pytest.raises(NpylstmError, match="allow_unused: no module or tensor 'nothing'"):
        nc.from_torch(tmp_path / "w.pt", allow_unused=["nothing"], **chain)


def test_an_example_does_not_help_a_state_dict(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pt", rnn=nn.LSTM(3, 4))
    with pytest.raises(NpylstmError, match="is a state_dict, which cannot be traced: state layers"):
        nc.from_torch(path, torch.zeros(1, 5, 3))


def test_a_chain_that_cannot_be_read(tmp_path: Path) -> None:
    path = everything(tmp_path / "all.pt")
    for chain, part in (("rnn -> -> fc", "''"), ("rnn -> fc(1", r"'fc\(1'"), ("a b", "'a b'")):
        with pytest.raises(
            NpylstmError, match=f"layers: expected a name or name.options., got {part}"
        ):
            nc.from_torch(path, layers=chain, batch_first=True)
    steps = parse_steps("rnn( relu , eps = 1e-5 )->last")
    assert [(s.word, s.values, dict(s.options)) for s in steps] == [
        ("rnn", ("relu",), {"eps": "1e-5"}), ("last", (), {}),
    ]  # fmt: skip


def test_odd_tensors_are_named(tmp_path: Path) -> None:
    state = nn.LSTM(3, 4, 2).state_dict()
    del state["weight_hh_l1"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UnsupportedError, match="model: tensors missing or left over: weight_hh_l1"):
        nc.from_torch(tmp_path / "w.pt", layers="model", batch_first=True)
    torch.save({"a.strange": torch.zeros(2, 2, 2, 2)}, tmp_path / "w.pt")
    (found,) = find_modules(read_checkpoint(tmp_path / "w.pt").tensors)
    assert str(found) == "a: ?(strange (2, 2, 2, 2))"
    with pytest.raises(
        UnsupportedError, match=r"layers: a: \?\(strange \(2, 2, 2, 2\)\) is not supported here"
    ):
        nc.from_torch(tmp_path / "w.pt", layers="a")
    torch.save(
        {"fc.weight": torch.full((2, 3), torch.nan), "fc.bias": torch.zeros(2)}, tmp_path / "w.pt"
    )
    with pytest.raises(NpylstmError, match="fc/kernel: expected finite numbers"):
        nc.from_torch(tmp_path / "w.pt", layers="fc")


NUMPY_ONLY = """
import sys
class Block:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "safetensors", "h5py", "numba", "tensorflow"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from npylstm.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("form", ["pt", "legacy", "safetensors"])
def test_conversion_with_numpy_alone(form: str, tmp_path: Path, root: Path) -> None:
    from safetensors.torch import save_file

    module = nn.ModuleDict(
        {"rnn": nn.LSTM(1, 5, batch_first=True), "output_layer": nn.Linear(5, 1)}
    )
    path = tmp_path / f"w.{form}"
    if form == "safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=form == "pt")
    out = tmp_path / "w.npz"
    chain = ["--layers", "rnn -> last -> output_layer", "--batch-first"]
    result = subprocess.run(
        [sys.executable, "-c", NUMPY_ONLY, "convert", path, out, *chain],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "no cases recorded: running this model needs PyTorch" in result.stderr
    from npylstm import load

    x = np.random.default_rng(0).normal(size=(2, 9, 1)).astype("float32")
    with torch.no_grad():
        y = module["output_layer"](module["rnn"](torch.from_numpy(x))[0][:, -1]).numpy()
    np.testing.assert_allclose(load(out, "numpy").predict(x), y, rtol=0, atol=2e-7)


def run(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_info_lists_and_prints_the_command(tmp_path: Path, capsys: Any) -> None:
    net = nn.ModuleDict(
        {"rnn": nn.LSTM(1, 5, 2, bidirectional=True), "output_layer": nn.Linear(10, 1)}
    )
    torch.save({"model_state": net.state_dict(), "epoch": 3}, tmp_path / "weights.pt")
    status, out, _ = run(capsys, "info", tmp_path / "weights.pt")
    assert status == 0
    assert "rnn: LSTM(1 -> 5, 2 layers, bidirectional)" in out
    assert "output_layer: Linear(10 -> 1)" in out
    assert '--layers "rnn -> last -> output_layer" --batch-first' in out
    assert "key 'model_state', the only state_dict in the file" in out
    status, out, _ = run(capsys, "info", tmp_path / "weights.pt", "--json")
    assert status == 0
    assert '"command": "npylstm convert' in out


def test_command_line(tmp_path: Path, capsys: Any) -> None:
    path, npz = everything(tmp_path / "all.pt"), tmp_path / "all.npz"
    chain = ["--layers", CHAIN, "--batch-first"]
    status, out, _ = run(capsys, "convert", path, npz, *chain)
    assert status == 0
    assert "the engine agrees with torch for the chain that you stated; whether the chain" in out
    assert "parity held" not in out
    status, out, _ = run(capsys, "verify", npz, "--against", path, *chain)
    assert status == 0
    status, out, _ = run(capsys, "info", path, *chain)
    assert status == 0
    assert "bidirectional" in out
    status, _, err = run(capsys, "convert", path, npz, "--architecture", "x.json")
    assert status == 2
    assert "--architecture does not go with a source of torch" in err
    status, _, err = run(
        capsys, "convert", Path("models/sine_keras/sine.keras"), npz, "--layers", "a"
    )
    assert status == 2
    assert "layers: only for weights-only files" in err
