"""Checkpoints with foreign objects beside the weights, and which part of them is the model."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import pathlib
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.files import read_checkpoint
from torch import nn

from npylstm import FormatError, Model, NpylstmError, UnsupportedError

STATE = {
    "rnn.weight_ih_l0": torch.arange(12.0).reshape(4, 3), "fc.bias": torch.tensor([0.5, -2.0])
}  # fmt: skip


class Color(enum.Enum):
    RED = 1


class Vocabulary:
    """Stands for a tokenizer or a scaler: attributes, arrays, other objects, itself."""

    __slots__ = ("index", "words")

    def __init__(self) -> None:
        self.words = [f"word{k}" for k in range(2000)]
        self.index = {word: (k, self) for k, word in enumerate(self.words)}


class Bag(dict):  # type: ignore[type-arg]
    """A mapping with attributes, as configurations are."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.frozen = True


class Rows(list):  # type: ignore[type-arg]
    pass


def trained() -> Any:
    """An optimizer as an object, whose state has parameters for keys."""
    module = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


FOREIGN: dict[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(hidden=8, path=pathlib.PurePosixPath("/data")),
    "enumeration": lambda: {"color": Color.RED, Color.RED: 3, (Color.RED, "a"): 4},
    "function and class": lambda: [torch.optim.Adam, functools.partial(torch.relu), print, nn.LSTM],
    "loss": lambda: [nn.CrossEntropyLoss(weight=torch.ones(3)), nn.MSELoss()],
    "vocabulary": Vocabulary,
    "mapping": lambda: Bag(a=Bag(b=3), c=Rows([1, Rows([2])])),
    "containers": lambda: [collections.deque([1, 2], 3), collections.defaultdict(list, {"a": [1]}),
                           collections.Counter("aab"), frozenset({1, frozenset({2})}), {3}, range(3)],
    "times": lambda: [datetime.datetime(2024, 5, 6), datetime.timedelta(3), datetime.date(2024, 1, 1)],
    "numpy": lambda: [np.random.RandomState(3), np.random.default_rng(3), np.array(["a", "b"]),
                      np.array([{}, None], dtype=object), np.float32(3), np.dtype("f4"), np.arange(5, dtype=">u4"),
                      np.zeros(2, [("a", "f4"), ("b", "i8")]), np.datetime64("2024-05-06"), np.bool_(1)],
    "random states": lambda: [random.getstate(), np.random.get_state(), torch.get_rng_state()],  # noqa: NPY002
    "optimizer": trained,
    "large keys": lambda: {(1,) * 300: 1, 1 << 90: 2, -1: 3, 2.5: 4, None: 5, b"x": 6},
    "tensors of other kinds": lambda: [torch.zeros(2, dtype=torch.complex64), torch.float16,
                                       torch.device("cpu"), torch.Size([3]), torch.Generator().get_state()],
}  # fmt: skip


# A legacy file does not store how large a storage of another kind is, so it cannot be passed over.
IN_FILES = [
    (name, zipped) for name in FOREIGN for zipped in (True, False)
    if zipped or name != "tensors of other kinds"
]  # fmt: skip


@pytest.mark.parametrize(("name", "zipped"), IN_FILES)
@pytest.mark.parametrize("protocol", [2, 5])
def test_foreign_objects_are_not_needed(
    name: str, zipped: bool, protocol: int, tmp_path: Path
) -> None:
    thing = {"before": FOREIGN[name](), "epoch": 3, "state_dict": STATE, "after": FOREIGN[name]()}
    torch.save(
        thing, tmp_path / "m.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped
    )
    found = read_checkpoint(tmp_path / "m.pt")
    assert list(found.tensors) == list(STATE)
    for key, tensor in STATE.items():
        np.testing.assert_array_equal(found.tensors[key], tensor.numpy())
    assert found.notes == ("key 'state_dict', the only state_dict in the file",)


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_objects_alone_are_refused(name: str, tmp_path: Path) -> None:
    torch.save(FOREIGN[name](), tmp_path / "m.pt")
    with pytest.raises(NpylstmError, match="state_dict"):
        read_checkpoint(tmp_path / "m.pt")


def test_weights_that_are_foreign_objects_are_named(tmp_path: Path) -> None:
    torch.save({"model": {**STATE, "a": Bag(), "b": torch.zeros(2).to_sparse()}}, tmp_path / "m.pt")
    for key in (None, "model"):
        with pytest.raises(UnsupportedError) as error:
            read_checkpoint(tmp_path / "m.pt", key)
        assert "test_torch_checkpoints.Bag, which was not run" in str(error.value)
        assert "b: an object of torch._utils._rebuild_sparse_tensor" in str(error.value)


def lightning_checkpoint(path: Path) -> nn.Module:
    """A checkpoint that Lightning itself writes, with callbacks and all kinds of parameters."""
    lightning = pytest.importorskip("lightning")

    class Net(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self, hidden: int = 4, loss: Any = None, color: Any = None, where: Any = None):
            super().__init__()
            self.save_hyperparameters()
            self.model = nn.ModuleDict({"rnn": nn.GRU(3, hidden, batch_first=True)})
            self.model["fc"] = nn.Linear(hidden, 1)
            self.loss = loss

        def training_step(self, batch: Any, _: int) -> Any:
            y = self.model["fc"](self.model["rnn"](batch[0])[0][:, -1])
            loss = self.loss(y, batch[0][:, 0, :1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    net = Net(4, nn.HuberLoss(), Color.RED, pathlib.PurePosixPath("/data"))
    data = torch.utils.data.TensorDataset(torch.randn(8, 5, 3))
    saver = lightning.pytorch.callbacks.ModelCheckpoint(path.parent, monitor="loss", save_last=True)
    trainer = lightning.Trainer(
        max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", callbacks=[saver],
    )  # fmt: skip
    trainer.fit(net, torch.utils.data.DataLoader(data, 4))
    trainer.save_checkpoint(path)
    return net.eval()


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    net = lightning_checkpoint(tmp_path / "last.ckpt")
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    with torch.no_grad():
        rnn, fc = net.model["rnn"], net.model["fc"]
        expected = fc(rnn(torch.from_numpy(x))[0][:, -1]).numpy()
    for chain in ("model.rnn -> last -> model.fc", "rnn -> last -> fc"):
        spec = nc.from_torch(tmp_path / "last.ckpt", layers=chain, batch_first=True)
        np.testing.assert_allclose(Model(spec).predict(x), expected, rtol=1e-5, atol=1e-6)


def test_what_a_trainer_keeps_is_no_model(tmp_path: Path) -> None:
    other = {k: v + 1 for k, v in STATE.items()}
    beside = {"hyper_parameters": {"net": nn.Linear(2, 2), "state": other}, "loops": {"a": other},
              "callbacks": {"best": {"a": torch.tensor(0.3)}}, "scores": {"a": torch.tensor(0.3)},
              "counts": {"tp": torch.zeros(3, dtype=torch.long)}, "loss": nn.MSELoss(),
              "random": {"cpu": torch.get_rng_state()}}  # fmt: skip
    torch.save({**beside, "net": STATE}, tmp_path / "m.pt")
    assert list(read_checkpoint(tmp_path / "m.pt").tensors) == list(STATE)
    found = read_checkpoint(tmp_path / "m.pt", "hyper_parameters.state").tensors
    np.testing.assert_array_equal(found["fc.bias"], other["fc.bias"].numpy())
    torch.save(beside, tmp_path / "m.pt")
    with pytest.raises(NpylstmError, match="expected a state_dict"):
        read_checkpoint(tmp_path / "m.pt")


def test_several_models_are_listed(tmp_path: Path) -> None:
    torch.save({"a": STATE, "b": [nn.Linear(2, 2)], "c": Bag(ema=dict(STATE))}, tmp_path / "m.pt")
    with pytest.raises(FormatError, match=r"choose one by key .--key.: 'a', 'b.0', 'c.ema'"):
        read_checkpoint(tmp_path / "m.pt")
    assert list(read_checkpoint(tmp_path / "m.pt", "b.0").tensors) == ["weight", "bias"]
    assert list(read_checkpoint(tmp_path / "m.pt", "c.ema").tensors) == list(STATE)


def test_a_module_and_its_state_dict_are_one_model(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    torch.save({"state_dict": module.state_dict(), "model": module}, tmp_path / "m.pt")
    assert read_checkpoint(tmp_path / "m.pt").notes[0].startswith("key 'model'")
    torch.save({"model": STATE, "ema": STATE.copy()}, tmp_path / "m.pt")
    with pytest.raises(FormatError, match="holds 2 state_dicts, choose one by key"):
        read_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "kind", ["arrays", "tensors", "modules", "big endian", "half", "half arrays"]
)
def test_plain_pickles(kind: str, protocol: int, tmp_path: Path) -> None:
    net = nn.ModuleDict({"rnn": nn.LSTM(3, 4), "fc": nn.Linear(4, 2)}).eval()
    if "half" in kind:
        net = net.half()
    state = net.state_dict()
    thing: Any = {"half arrays": {k: v.numpy() for k, v in state.items()}, "arrays": {k: v.numpy() for k, v in state.items()}, "tensors": state, "half": state,
                  "modules": net, "big endian": {k: v.numpy().astype(">f4") for k, v in state.items()}}[kind]  # fmt: skip
    with open(tmp_path / "m.pkl", "wb") as stream:
        pickle.dump({"epoch": 3, "model": thing}, stream, protocol)
    found = read_checkpoint(tmp_path / "m.pkl")
    assert found.format == ("a pickled module (a pickle)" if kind == "modules" else "a pickle")
    assert list(found.tensors) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found.tensors[name], tensor.float().numpy(), strict=True)


WRAPPED = {
    "parallel": "module.{}", "compiled": "_orig_mod.{}", "both": "module._orig_mod.module.{}",
    "lightning": "model.{}", "net": "net.{}", "compiled in lightning": "model._orig_mod.{}",
    "parallel in lightning": "net.module.{}", "compiled submodules": "model.{}",
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_prefixes(name: str, tmp_path: Path) -> None:
    net = nn.ModuleDict({"rnn": nn.LSTM(3, 4, batch_first=True), "fc": nn.Linear(4, 2)}).eval()
    state = {WRAPPED[name].format(k): v for k, v in net.state_dict().items()}
    if name == "compiled submodules":
        state = {k.replace("rnn.", "rnn._orig_mod."): v for k, v in state.items()}
    for extra in ({}, {"criterion.weight": torch.ones(2)} if "lightning" in name else {}):
        torch.save({"state_dict": {**state, **extra}}, tmp_path / "m.pt")
        spec = nc.from_torch(tmp_path / "m.pt", layers="rnn -> last -> fc", batch_first=True,
                             allow_unused=[*{k.partition(".")[0] for k in extra}])  # fmt: skip
        x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
        with torch.no_grad():
            expected = net["fc"](net["rnn"](torch.from_numpy(x))[0][:, -1]).numpy()
        np.testing.assert_allclose(Model(spec).predict(x), expected, rtol=1e-5, atol=1e-6)
