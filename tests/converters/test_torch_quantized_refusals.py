"""Quantized modules and TorchScript of PyTorch that are refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.files import read_checkpoint
from npylstm_converters.torch.runner import TorchRunner
from torch import nn
from torch_quantized import (
    CHANNELS,
    IDS,
    TENSOR,
    Cells,
    Damaged,
    Tagger,
    dequantized_spec,
    float_module,
    plain_weights,
    quantization,
    quantized,
    saved,
    seeded,
)

from npylstm import FormatError, Model, NpylstmError, UnsupportedError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # torch's own, about quantization
    pytest.mark.skipif(
        torch.backends.quantized.engine == "none", reason="this torch has no quantized modules"
    ),
]


# What is refused, and why.


def test_directions_that_a_state_dict_does_not_say(tmp_path: Path) -> None:
    for options in ({"num_layers": 2}, {"bidirectional": True}):
        made = quantized(seeded(nn.ModuleDict({"rnn": nn.LSTM(4, 4, **options)})))
        path = saved(made, False, tmp_path / "m.pt")
        with pytest.raises(UnsupportedError, match=r"rnn\..*two layers of 4 .* one layer in both"):
            read_checkpoint(path)
        arrays = read_checkpoint(saved(made, True, path)).tensors
        assert set(arrays) == set(plain_weights(made))


def static() -> Any:
    """A module whose activations are rounded by scales that were measured."""
    made = nn.Sequential(quantization.QuantStub(), nn.Linear(3, 4), quantization.DeQuantStub())
    made = seeded(made)
    made.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
    prepared = quantization.prepare(made)
    prepared(torch.randn(20, 3))
    return quantization.convert(prepared)


def test_static_quantization(tmp_path: Path) -> None:
    made = static()
    why = "quantized in another way than by quantize_dynamic.*measured.*convert the float module"
    with pytest.raises(UnsupportedError, match=f"1: is {why}"):
        dequantized_spec(saved(made, False, tmp_path / "m.pt"), layers="1")
    for source, example in ((saved(made, True, tmp_path / "m.pt"), None), (made, torch.ones(2, 3))):
        with pytest.raises(UnsupportedError, match=rf"1 \(torch\S+linear.Linear\): is {why}") as e:
            dequantized_spec(source, example)
        assert len(e.value.reasons) == 3  # also what rounds the input, and its counterpart


def test_prepared_modules() -> None:
    net = seeded(nn.Sequential(nn.Linear(3, 4)))
    net[0].qconfig = quantization.default_qconfig  # type: ignore[assignment]
    made = quantization.prepare(net)
    net.train()
    net[0].qconfig = quantization.default_qat_qconfig  # type: ignore[assignment]
    trained = quantization.prepare_qat(net).eval()
    for module, why in ((made, "measures activations"), (trained, "rounds values")):
        with pytest.raises(UnsupportedError, match=rf"0.* \(torch.ao.*\): {why}.*before quantiz"):
            dequantized_spec(module, torch.ones(2, 3))


def test_hooks_on_quantized_modules() -> None:
    made = quantized(seeded(nn.Sequential(nn.Linear(3, 4))))
    made[0].register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedError, match="0: is quantized, and has a hook"):
        dequantized_spec(made, torch.ones(2, 3))


class Derived(torch.ao.nn.quantized.dynamic.Linear):
    pass


def test_classes_that_inherit_from_quantized_modules() -> None:
    made = nn.Sequential(Derived(3, 4))
    with pytest.raises(
        UnsupportedError, match=r"0 \(.*Derived\): is a class of its own, which inh"
    ):
        dequantized_spec(made, torch.ones(2, 3))


def test_other_codes_are_named(tmp_path: Path) -> None:
    w = torch.quantize_per_tensor(torch.randn(4, 3), 0.1, 3, torch.quint8)
    torch.save({"fc.weight": w, "fc.bias": torch.ones(4)}, tmp_path / "m.pt")
    with pytest.raises(
        UnsupportedError, match=r"fc.weight: a quantized tensor of other than 8-bit"
    ):
        read_checkpoint(tmp_path / "m.pt")
    params = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(
        torch.randn(4, 3), 0.1, 0, torch.qint8), None)  # fmt: skip
    torch.save({"other": params, "fc.bias": torch.ones(4)}, tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match=r"other: an object of C.*no form that is known"):
        read_checkpoint(tmp_path / "m.pt")


DAMAGED = {
    "nan": (TENSOR, float("nan"), 0),
    "negative": (TENSOR, -0.1, 0),
    "beyond float32": (TENSOR, 1e300, 0),
    "zero point": (TENSOR, 0.1, 1 << 62),
    "a text": (TENSOR, "0.1", 0),
    "too short": (TENSOR, 0.1),
    "axis": (CHANNELS, torch.ones(4), torch.zeros(4, dtype=torch.int64), 2),
    "few scales": (CHANNELS, torch.ones(3), torch.zeros(3, dtype=torch.int64), 0),
    "texts": (CHANNELS, ["0.1"] * 4, [0] * 4, 0),
    "zero points of floats": (CHANNELS, torch.ones(4), torch.zeros(4), 0),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_quantizers(name: str, tmp_path: Path) -> None:
    torch.save({"fc.weight": Damaged(*DAMAGED[name])}, tmp_path / "m.pt")
    with pytest.raises(FormatError):
        read_checkpoint(tmp_path / "m.pt")


def test_quantized_embeddings(tmp_path: Path) -> None:
    net = seeded(nn.Sequential(nn.Embedding(9, 8)))
    net[0].qconfig = quantization.float_qparams_weight_only_qconfig  # type: ignore[assignment]
    made = quantization.convert(quantization.prepare(net))
    for source, example in (
        (saved(made, True, tmp_path / "m.pt"), None),
        (made, torch.ones(2, 3).long()),
    ):
        with pytest.raises(UnsupportedError, match=r"0 \(.*Embedding\): is a quantized embedding"):
            dequantized_spec(source, example)


def test_weights_in_two_forms(tmp_path: Path) -> None:
    state = quantized(seeded(Tagger())).state_dict()
    for extra in ("fc.weight", "rnn.bias_hh_l0", "fc._packed_params.weight",
                  "rnn._all_weight_values.0.weight"):  # fmt: skip
        torch.save({**state, extra: torch.ones(5, 4)}, tmp_path / "m.pt")
        with pytest.raises(FormatError, match=r"twice|two forms"):
            read_checkpoint(tmp_path / "m.pt")


def test_missing_layers(tmp_path: Path) -> None:
    state = quantized(seeded(Tagger(layers=3))).state_dict()
    del state["rnn._all_weight_values.1.param"]
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(NpylstmError, match="a layer before it is missing"):
        read_checkpoint(tmp_path / "m.pt")


# TorchScript.


class Both(nn.Module):
    """A recurrent layer in two directions, cells, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, 2, batch_first=True, bidirectional=True)
        self.cells, self.tagger = Cells(), Tagger()
        self.narrow = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> Any:
        return self.cells(self.narrow(self.gru(x)[0][:, -1])), self.tagger(ids)


def scripts(made: Any, example: Any) -> dict[str, Any]:
    return {
        "scripted": torch.jit.script(made),
        "traced": torch.jit.trace(made, example),
        "frozen": torch.jit.freeze(torch.jit.script(made)),
    }


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("scripted", torch.qint8),
        ("traced", torch.qint8),
        ("frozen", torch.qint8),
        ("frozen", torch.float16),
    ],
)
def test_scripts(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0))
    example = (x, torch.from_numpy(IDS))
    original = seeded(Both())
    made = quantized(original, dtype)
    made.cells.second = made.cells.first
    scripts(made, example)[form].save(tmp_path / "m.pt")
    spec = dequantized_spec(tmp_path / "m.pt", example)
    plain = float_module(made, original)
    given = dict(zip((t.name for t in spec.inputs), (x.numpy(), IDS), strict=True))
    found = Model(spec).predict(given)
    with torch.no_grad():
        expected = plain(*example)
    for ours, theirs in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)  # as in test_outputs
    int8 = dtype == torch.qint8
    assert spec.provenance["proof"] == ("stated" if int8 else "proven")
    if form != "frozen" and int8:
        modules = {
            "gru",
            "narrow",
            "cells.lstm",
            "cells.gru",
            "cells.rnn",
            "tagger.rnn",
            "tagger.fc",
        }
        assert modules <= {*spec.provenance["dequantized"]}
    runner = TorchRunner(tmp_path / "m.pt", spec, example=example)
    recorded = nc.record(spec, runner, 1)
    assert recorded.provenance["recorded_by"].endswith("dequantized weights") == int8
    Model(recorded).verify().check()


def test_scripts_of_static_quantization() -> None:
    why = "in aten::quantize_per_tensor, quantized::linear: only modules of quantize_dynamic"
    with pytest.raises(UnsupportedError, match=why):
        dequantized_spec(torch.jit.script(static()), torch.ones(2, 3))


def test_scripts_of_one_module_and_of_packed_sequences() -> None:
    made = quantized(nn.Sequential(seeded(nn.Linear(3, 4))))[0]
    spec = dequantized_spec(torch.jit.trace(made, torch.ones(2, 3)), torch.ones(2, 3))
    np.testing.assert_array_equal(spec.layers[0].weights["kernel"].T, made.weight().dequantize())
    assert spec.provenance["dequantized"] == ["model"]

    class Packing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), True)
            return self.rnn(packed)[1][0]

    script = torch.jit.script(quantized(seeded(Packing())))
    with pytest.raises(UnsupportedError, match=r"TorchScript|packed"):
        dequantized_spec(script, torch.ones(2, 3, 3))


def test_modules_of_8_bits_are_dequantized_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their outputs differ from the quantized module's, so whoever converts says so."""
    from npylstm.cli import main

    made = quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(3, 2)).eval())
    with pytest.raises(UnsupportedError, match=r"quantized to 8 bits.*dequantize=True"):
        nc.from_torch(made, torch.ones(2, 3))
    torch.save(made.state_dict(), tmp_path / "m.pt")
    target = str(tmp_path / "m.npz")
    ask = ["convert", str(tmp_path / "m.pt"), target, "--layers", "0", "--record", "0"]
    assert main(ask) == 2
    assert "--dequantize" in capsys.readouterr().err
    assert main([*ask, "--dequantize"]) == 0
    assert main(["info", str(tmp_path / "m.pt")]) == 0
    assert "--dequantize" in capsys.readouterr().out
