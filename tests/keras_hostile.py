"""Ways to make a hostile Keras file from a sound one."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data/keras"
LEGACY = DATA / "tf24_stacked.h5"
ARCHIVE = DATA / "tf213_stacked.keras"
MB = 1 << 20
LONGEST_LINE = 4000  # a message that no screen holds is not clear

Json = dict[str, Any]
Maker = Callable[[Path], object]


def members(path: Path = ARCHIVE) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def raw(data: bytes) -> Maker:
    return lambda path: path.write_bytes(data)


def archive(**parts: bytes | None) -> Maker:
    """A ``.keras`` with other members: ``config``, ``metadata`` or ``weights``; None: left out."""
    names = {"config": "config.json", "metadata": "metadata.json", "weights": "model.weights.h5"}

    def make(path: Path) -> None:
        changed = members() | {names[key]: data for key, data in parts.items()}
        write_members(path, {name: data for name, data in changed.items() if data is not None})

    return make


def sound_config() -> Json:
    document: Json = json.loads(members()["config.json"])
    return document


def config(change: Callable[[list[Json]], object]) -> Maker:
    """A ``.keras`` whose list of layers is changed."""

    def make(path: Path) -> None:
        document = sound_config()
        change(document["config"]["layers"])
        archive(config=json.dumps(document).encode())(path)

    return make


def option(layer: int, **values: Any) -> Maker:
    return config(lambda layers: layers[layer]["config"].update(values))


def extra_layer(class_name: str, **values: Any) -> Maker:
    return config(
        lambda layers: layers.append(
            {"class_name": class_name, "config": {"name": "extra", **values}}
        )
    )


def functional(**nodes: Any) -> Maker:
    """A functional model of one Dense layer, called as ``nodes`` say."""
    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_shape": [None, 5]}},
        {"class_name": "Dense", "name": "dense", "inbound_nodes": [nodes],
         "config": {"name": "dense", "units": 3}},
    ]  # fmt: skip
    graph = {"layers": layers, "input_layers": ["x", 0, 0], "output_layers": ["dense", 0, 0]}
    document = {"class_name": "Functional", "config": graph}
    return archive(config=json.dumps(document).encode())


def edited(change: Callable[[h5py.File], object]) -> Maker:
    """A full-model ``.h5`` after a change."""

    def make(path: Path) -> None:
        path.write_bytes(LEGACY.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def edited_archive(change: Callable[[h5py.File], object]) -> Maker:
    """A ``.keras`` whose ``model.weights.h5`` is changed."""

    def make(path: Path) -> None:
        stream = io.BytesIO(members()["model.weights.h5"])
        with h5py.File(stream, "r+") as file:
            change(file)
        archive(weights=stream.getvalue())(path)

    return make


KERNEL = "model_weights/lstm/lstm/lstm_cell/kernel:0"
LSTM_GROUP = "model_weights/lstm"
ROOT_GROUP = "_layer_checkpoint_dependencies"
FIRST = f"{ROOT_GROUP}/lstm/cell/vars/0"


def put(path: str, *args: Any, **options: Any) -> Callable[[h5py.File], None]:
    """Replace an array."""

    def change(file: h5py.File) -> None:
        file.pop(path, None)
        file.create_dataset(path, *args, **options)

    return change


def kernel(value: Callable[[Any], Any]) -> Maker:
    return edited(lambda file: put(KERNEL, data=value(file[KERNEL][()]))(file))


def poke(number: float) -> Maker:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array[1, 1] = number
        return array

    return kernel(change)


def link(path: str, target: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.pop(path, None)
        file[path] = target

    return change


def attribute(path: str, name: str, value: Any) -> Maker:
    return edited(lambda file: file[path].attrs.__setitem__(name, value))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Boom:
    """Whoever unpickles this leaves a folder behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def assert_one_line(stderr: str) -> None:
    assert stderr.startswith("npylstm: error: ")
    assert stderr.count("\n") == 1
    assert len(stderr) < LONGEST_LINE
    assert stderr[:-1].isprintable()  # or a file sends codes to the terminal
