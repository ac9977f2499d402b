"""Ways to make a hostile model of TensorFlow.js from a sound one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tfjs_layout import Layout, Weight, quantise, read, weight

DATA = Path(__file__).parent / "data/tfjs/4.22.0"
MB = 1 << 20
LONGEST_LINE = 4000  # a message that no screen holds is not clear

Json = dict[str, Any]
Maker = Callable[[Path], object]  # fills a folder with model.json and shards


def sound() -> Layout:
    """An LSTM of 5 units with 3 features, a Dense layer of 2."""
    return read(DATA / "lstm")


SHARD = "group1-shard1of1.bin"


def text(data: bytes) -> Maker:
    return lambda folder: (folder / "model.json").write_bytes(data)


def document(change: Callable[[Json], object]) -> Maker:
    """A changed ``model.json``, its manifest included."""

    def make(folder: Path) -> None:
        path = sound().write(folder)
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return make


def top(**values: Any) -> Maker:
    return document(lambda d: d.update(values))


def topology(value: Any) -> Maker:
    return top(modelTopology=value)


def layers(change: Callable[[list[Json]], object]) -> Maker:
    return document(lambda d: change(d["modelTopology"]["config"]["layers"]))


def option(layer: int, /, **values: Any) -> Maker:
    return layers(lambda found: found[layer]["config"].update(values))


def extra(class_name: Any, **values: Any) -> Maker:
    return layers(
        lambda found: found.append(
            {"class_name": class_name, "config": {"name": "extra", **values}}
        )
    )


def group(change: Callable[[Json], object]) -> Maker:
    return document(lambda d: change(d["weightsManifest"][0]))


def entry(which: int, /, **values: Any) -> Maker:
    return group(lambda g: g["weights"][which].update(values))


def forget(which: int, key: str) -> Maker:
    return group(lambda g: g["weights"][which].pop(key))


def paths(value: Any) -> Maker:
    return group(lambda g: g.update(paths=value))


def shard(change: Callable[[bytes], bytes]) -> Maker:
    def make(folder: Path) -> None:
        sound().write(folder)
        path = folder / SHARD
        path.write_bytes(change(path.read_bytes()))

    return make


def weights(change: Callable[[list[Weight]], Any]) -> Maker:
    """Other weights, entries and bytes in step."""

    def make(folder: Path) -> None:
        found = list(sound().weights)
        change(found)
        sound().with_weights(found).write(folder)

    return make


def put(which: int, array: Any) -> Maker:
    return weights(
        lambda found: found.__setitem__(which, weight(found[which].name, np.asarray(array)))
    )


def poke(number: float) -> Maker:
    array = sound().weights[0].array.copy()
    array[1, 1] = number
    return put(0, array)


def quantised(to: str, /, **notes: Any) -> Maker:
    """The first weight quantised, with other notes; None: without this note."""

    def change(found: list[Weight]) -> None:
        w = quantise(found[0], to)
        described = {**w.entry["quantization"], **notes}
        kept = {k: v for k, v in described.items() if v is not None}
        found[0] = w.described(quantization=kept)

    return weights(change)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def sequential(depth: int) -> Json:
    """Sequential models in each other."""
    layer: Json = copy.deepcopy(sound().layers[0])
    for k in range(depth):
        layer = {"class_name": "Sequential", "config": {"name": f"s{k}", "layers": [layer]}}
    return layer


def functional(nodes: Any, outputs: Any = None, inputs: Any = None) -> Maker:
    """A functional model of one Dense layer, called as ``nodes`` say."""
    found = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_input_shape": [None, 3], "dtype": "float32"}},
        {"class_name": "Dense", "name": "dense", "inbound_nodes": nodes,
         "config": {"name": "dense", "units": 2}},
    ]  # fmt: skip
    graph = {
        "name": "m", "layers": found,
        "input_layers": [["x", 0, 0]] if inputs is None else inputs,
        "output_layers": [["dense", 0, 0]] if outputs is None else outputs,
    }  # fmt: skip

    def make(folder: Path) -> None:
        made = [weight("dense/kernel", np.arange(6).reshape(3, 2)), weight("dense/bias", [1, 2])]
        layout = replace(
            sound(), document={"modelTopology": {"class_name": "Model", "config": graph}}
        )
        layout.with_weights(made).write(folder)

    return make


SOUND_NODES = [[["x", 0, 0, {}]]]


def assert_clear(message: str) -> None:
    assert message
    assert len(message) < LONGEST_LINE
    assert message.isprintable()  # or a file sends codes to the terminal
