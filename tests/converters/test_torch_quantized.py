"""Dynamically quantized modules of PyTorch: their weights are dequantized, wherever they are."""

from __future__ import annotations

import collections
import copy
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

from npylstm import FormatError, Model, NpylstmError, UnsupportedError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # torch's own, about quantization
    pytest.mark.skipif(
        torch.backends.quantized.engine == "none", reason="this torch has no quantized modules"
    ),
]
quantization = torch.ao.quantization
KINDS = {nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell}


class Tagger(nn.Module):
    """A tagger as in tutorials: embedding, recurrent layers, a head for every step."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, layers: int = 1, **options: Any) -> None:
        super().__init__()
        self.emb = nn.Embedding(9, 3)
        self.rnn = kind(3, 4, layers, batch_first=True, **options)
        self.fc = nn.Linear(8 if options.get("bidirectional") else 4, 5)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.fc(self.rnn(self.emb(ids))[0])


def dequantized_spec(*source: Any, **options: Any) -> Any:
    """Convert with dequantized weights, as whoever converts has to say."""
    return nc.from_torch(*source, dequantize=True, **options)


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for tensor in module.parameters():
        tensor.data.uniform_(-0.6, 0.6, generator=generator)
    return module.eval()


def quantized(module: nn.Module, dtype: torch.dtype = torch.qint8, channels: bool = False) -> Any:
    if not channels:
        return quantization.quantize_dynamic(module, KINDS, dtype=dtype)
    return quantization.quantize_dynamic(
        module, {nn.Linear: quantization.per_channel_dynamic_qconfig}
    )


def plain_weights(module: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors with torch's own dequantized weights, by the names of the float module."""
    if hasattr(module, "get_weight"):
        found = {**module.get_weight(), **module.get_bias()}
    elif hasattr(module, "weight") and callable(module.weight):
        found = {"weight": module.weight(), "bias": module.bias()}
    else:
        own = dict(module.named_parameters(prefix[:-1], recurse=False))
        for name, child in module._modules.items():
            own |= plain_weights(child, f"{prefix}{name}.")
        return own
    return {
        f"{prefix}{k}": v.dequantize() if v.is_quantized else v.detach()
        for k, v in found.items() if v is not None
    }  # fmt: skip


def float_module(made: Any, original: nn.Module) -> nn.Module:
    plain = copy.deepcopy(original)
    plain.load_state_dict(plain_weights(made))
    return plain


def saved(module: Any, whole: bool, path: Path) -> Path:
    torch.save(module if whole else module.state_dict(), path)
    return path


def computed(module: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(x)))


IDS = np.random.default_rng(5).integers(0, 9, (3, 6))
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


class Cells(nn.Module):
    """Cells of all kinds, a part that is shared, and a list beside the submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(3, 4), nn.GRUCell(4, 4)
        self.rnn = nn.RNNCell(4, 4, nonlinearity="relu")
        self.first = self.second = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        h, _ = self.lstm(x)
        return self.second(torch.tanh(self.first(self.rnn(self.gru(h)))))


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


class Damaged:
    """A quantized tensor of tens, with another quantizer than torch makes."""

    def __init__(self, *quantizer: Any) -> None:
        self.quantizer = quantizer

    def __reduce__(self) -> Any:
        storage = torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8).storage()
        rest = (False, collections.OrderedDict())
        return torch._utils._rebuild_qtensor, (storage, 0, (4, 3), (3, 1), self.quantizer, *rest)


TENSOR, CHANNELS = torch.per_tensor_affine, torch.per_channel_affine
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
