"""Dynamically quantized modules of PyTorch: their weights are dequantized, wherever they are."""

from __future__ import annotations

import zipfile
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
    Cells,
    Damaged,
    Tagger,
    dequantized_spec,
    float_module,
    plain_weights,
    quantized,
    saved,
    seeded,
)

from npylstm import Model

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # torch's own, about quantization
    pytest.mark.skipif(
        torch.backends.quantized.engine == "none", reason="this torch has no quantized modules"
    ),
]


def computed(module: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(x)))


MODULES: dict[str, Any] = {
    "LSTM in two directions": lambda: Tagger(layers=2, bidirectional=True),
    "GRU": lambda: Tagger(nn.GRU, 3),
    "cells": lambda: nn.ModuleDict(
        {k.__name__: k(3, 4) for k in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)}
    ),
    "alone": lambda: nn.Linear(3, 4),
    "no bias": lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2)),
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("way", ["qint8", "float16", "channels"])
@pytest.mark.parametrize("name", MODULES)
def test_weights_are_torchs_own(name: str, way: str, whole: bool, tmp_path: Path) -> None:
    module = nn.Sequential(seeded(MODULES[name]()))
    dtype = torch.float16 if way == "float16" else torch.qint8
    made = quantized(module, dtype, way == "channels")
    made = made[0] if name == "alone" else made
    file = read_checkpoint(saved(made, whole, tmp_path / "m.pt"))
    expected = plain_weights(made)
    assert set(file.tensors) == set(expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(file.tensors[key], tensor.detach().numpy(), err_msg=key)
        assert file.tensors[key].dtype == np.float32
    codes = {k.rpartition(".")[0] for k in file.dequantized}
    assert bool(codes) == (way == "qint8" or (way == "channels" and name != "cells"))


STEP = 1 / 127  # of the range: torch rounds activations to 7 bits on x86


@pytest.mark.parametrize("source", ["state_dict", "pickled", "module"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_outputs(kind: type[nn.RNNBase], source: str, tmp_path: Path) -> None:
    original = seeded(Tagger(kind, bidirectional=True))
    made = quantized(original)
    if source == "module":
        spec = dequantized_spec(made, torch.from_numpy(IDS))
    else:
        path = saved(made, source == "pickled", tmp_path / "m.pt")
        first = None if source == "pickled" else True
        chain = "emb(embedding) -> rnn -> fc" if source == "state_dict" else "emb -> rnn -> fc"
        spec = dequantized_spec(path, layers=chain, batch_first=first)
    ours = Model(spec).predict(IDS)
    plain = float_module(made, original)
    # Equal up to the rounding of sums of some ten float32 products of numbers of size one.
    np.testing.assert_allclose(ours, computed(plain, IDS), rtol=1e-5, atol=2e-6)
    one = IDS[:, :1]
    assert 1e-5 < abs(Model(spec).predict(one) - computed(made, one)).max() < bound(plain, one)
    assert spec.provenance["proof"] == "stated"
    assert spec.provenance["dequantized"] == ["rnn", "fc"]
    (note,) = [n for n in spec.provenance["decisions"] if "int8" in n]
    assert "int8 weights of rnn, fc are multiplied by their scales; torch also rounds" in note
    assert "rnn, fc compute with dequantized int8 weights" in spec.provenance["stated"][-1]


def bound(plain: Any, ids: np.ndarray[Any, Any]) -> float:
    """The largest difference that rounded inputs make in the first step, whose state is zero.

    Inputs move by up to a step of their range, which contains zero; so sums move by the step times
    the weights. sigmoid has a slope of at most 1/4, tanh of 1, and both are at most 1: an LSTM's
    h = o tanh(i g) moves by (1/4 + 1/4 + 1) of that, a GRU's h = (1 - z) tanh(n + r b) by 1/4 + 1
    and |b| / 4, with recurrent biases b below 0.6.
    """
    x = plain.emb(torch.from_numpy(ids)).detach()
    rows = [w for name, w in plain.rnn.named_parameters() if name.startswith("weight_ih")]
    wide = max(float(w.abs().sum(1).max()) for w in rows)
    moved = 1.5 * wide * STEP * float(x.clamp(min=0).max() - x.clamp(max=0).min())
    h = plain.rnn(x)[0].detach()
    span = float(h.clamp(min=0).max() - h.clamp(max=0).min()) + 2 * moved
    return float(plain.fc.weight.abs().sum(1).max()) * (moved + STEP * span)


def test_weights_of_16_bits_are_what_torch_computes_with(tmp_path: Path) -> None:
    made = quantized(seeded(Tagger(bidirectional=True)), torch.float16)
    spec = dequantized_spec(made, torch.from_numpy(IDS))
    np.testing.assert_allclose(
        Model(spec).predict(IDS), computed(made, IDS), rtol=1e-5, atol=2e-6
    )  # as in test_outputs
    assert spec.provenance["proof"] == "proven"
    assert any("float16 weights of rnn, fc are widened" in n for n in spec.provenance["decisions"])
    recorded = nc.record(spec, TorchRunner(made, spec, example=torch.from_numpy(IDS)), 2)
    assert "dequantized" not in recorded.provenance["recorded_by"]
    Model(recorded).verify().check()


def test_cells_and_shared_modules() -> None:
    original = seeded(Cells())
    made = quantized(original)
    made.second, made.parts = made.first, [made.first, made.lstm]
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    before, random = made(x), torch.get_rng_state()
    spec = dequantized_spec(made, x)
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(before, made(x))  # the user's module is as it was
    plain = float_module(made, original)
    np.testing.assert_allclose(
        Model(spec).predict(x.numpy()), computed(plain, x.numpy()), rtol=1e-5, atol=2e-6
    )  # as in test_outputs
    assert spec.provenance["dequantized"] == ["lstm", "gru", "rnn", "first"]


def test_verdicts_never_say_that_the_quantized_model_is_proven(tmp_path: Path) -> None:
    made = quantized(seeded(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    path = saved(made, True, tmp_path / "m.pt")
    for source, example in ((path, None), (made, x)):
        spec = dequantized_spec(source, example)
        runner = TorchRunner(source, spec, example=example)
        recorded = nc.record(spec, runner, 2)
        assert recorded.provenance["recorded_by"].endswith(", with dequantized weights")
        report = Model(recorded).verify()
        assert report.passed
        assert report.proof == "stated"
        assert "agrees with torch for the dequantized weights" in report.verdict
        given, found = (
            {spec.inputs[0].name: x.numpy()},
            {spec.outputs[0]: computed(made, x.numpy())},
        )
        check = nc.check_author(recorded, source, given, found)
        assert not check.report.passed  # the author's program is the quantized one
        assert check.spec.provenance["proof"] == "stated"


def test_wrapped_modules_in_a_checkpoint(tmp_path: Path) -> None:
    made = quantized(seeded(Tagger()))
    state = {f"module.{name}": value for name, value in made.state_dict().items()}
    torch.save({"epoch": 3, "model": state}, tmp_path / "m.pt")
    file = read_checkpoint(tmp_path / "m.pt")
    assert any("int8 weights of rnn, fc" in note for note in file.notes)
    np.testing.assert_array_equal(file.tensors["fc.weight"], made.fc.weight().dequantize())


def with_names_replaced(path: Path, old: bytes, new: bytes) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            found = name.endswith("data.pkl")
            assert not found or old in data
            archive.writestr(name, data.replace(old, new) if found else data)
    return path


def test_older_names_of_classes(tmp_path: Path) -> None:
    made = quantized(seeded(Tagger()))
    path = saved(made, True, tmp_path / "m.pt")
    with_names_replaced(path, b"torch.ao.nn.quantized", b"torch.nn.quantized")
    expected = plain_weights(made)
    for key, array in read_checkpoint(path).tensors.items():
        np.testing.assert_array_equal(array, expected[key].detach())


def test_tensors_by_themselves(tmp_path: Path) -> None:
    """torch 1.3 and 1.4 wrote weight and bias apart; codes may have zero points."""
    w = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([-3, 0, 5, 100])
    tensors = {
        "a": torch.quantize_per_tensor(w, 0.013, 7, torch.qint8),
        "b": torch.quantize_per_channel(w, torch.rand(4) / 50 + 0.01, points, 0, torch.qint8),
    }
    state = {
        "a._packed_params.weight": tensors["a"], "a._packed_params.bias": None,
        "a._packed_params.dtype": torch.qint8, "a.scale": torch.tensor(1.0),
        "a.zero_point": torch.tensor(0), "b.weight": tensors["b"], "b.bias": w[:, 0],
    }  # fmt: skip
    torch.save(state, tmp_path / "m.pt")
    arrays = read_checkpoint(tmp_path / "m.pt").tensors
    assert set(arrays) == {"a.weight", "b.weight", "b.bias"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(arrays[f"{name}.weight"], tensor.dequantize())
    scales = [0.125, 0.5, 0.0625, 2.0]
    torch.save({"c.weight": Damaged(CHANNELS, scales, points.tolist(), 0)}, tmp_path / "m.pt")
    expected = np.array(scales)[:, None] * (10 - points.numpy()[:, None]) * np.ones(3)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "m.pt").tensors["c.weight"], expected)


def test_legacy_files(tmp_path: Path) -> None:
    made = quantized(seeded(Tagger()))
    torch.save(made.state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    file = read_checkpoint(tmp_path / "m.pt")
    assert file.format == "PyTorch legacy pickle"
    for key, tensor in plain_weights(made).items():
        np.testing.assert_array_equal(file.tensors[key], tensor.detach())


def test_recurrent_modules_of_torch_1_4(tmp_path: Path) -> None:
    """A pair of tensors for each product, and none for the layer; as torch 1.4's source has it."""
    made = quantized(seeded(nn.ModuleDict({"rnn": nn.LSTM(3, 4, 2, bidirectional=True)})))
    rnn = made["rnn"]
    pairs = [
        packed.__getstate__()[0]
        for cell in rnn._all_weight_values for packed in cell.param.__getstate__()[0][4]
    ]  # fmt: skip
    state = {}
    for k, (weight, bias) in enumerate(pairs):
        state[f"rnn._all_weight_values.{k}.weight"] = weight
        state[f"rnn._all_weight_values.{k}.bias"] = bias
    torch.save(state, tmp_path / "m.pt")
    expected = plain_weights(made)
    assert set(read_checkpoint(tmp_path / "m.pt").tensors) == set(expected)

    class Packed(nn.Module):
        def __init__(self, pair: Any) -> None:
            super().__init__()
            self.pair = pair

        def __reduce__(self) -> Any:
            return Made, (), (self.pair, False)

    rnn._all_weight_values = nn.ModuleList(map(Packed, pairs))
    arrays = read_checkpoint(saved(made, True, tmp_path / "m.pt")).tensors
    for key, tensor in expected.items():
        np.testing.assert_array_equal(arrays[key], tensor.detach())


class Made(nn.Module):
    """What a pickle names in place of torch 1.4's PackedParameter."""


def test_biases_that_torch_ignores(tmp_path: Path) -> None:
    made = quantized(seeded(nn.Sequential(nn.LSTM(3, 4))))
    _, biases, _, _, packed = made[0]._all_weight_values[0].param.__getstate__()[0]
    other = torch.ops.quantized.make_quantized_cell_params_dynamic(
        *packed, biases[0] * 3, biases[1] * 0, True
    )
    x = torch.randn(5, 2, 3)
    before = made(x)[0]
    made[0]._all_weight_values[0].param = other
    assert torch.equal(before, made(x)[0])
    arrays = read_checkpoint(saved(made, False, tmp_path / "m.pt")).tensors
    np.testing.assert_array_equal(arrays["0.bias_ih_l0"], biases[0].detach())
