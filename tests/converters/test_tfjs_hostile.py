"""Damaged, lying and malicious layers models of TensorFlow.js: right, or refused in one line, cheaply.

A ``model.json`` names the files that are to be read: none outside its folder is touched.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_layout import Layout, Weight, quantise, read, weight, write_json

import npylstm
from npylstm.cli import main

DATA = Path(__file__).parent.parent / "data/tfjs/4.22.0"
MB = 1 << 20
LONGEST_LINE = 4000  # a message that no screen holds is not clear

Json = dict[str, Any]
Maker = Callable[[Path], object]  # fills a folder with model.json and shards


def sound() -> Layout:
    """An LSTM of 5 units with 3 features, a Dense layer of 2."""
    return read(DATA / "lstm")


SHARD = "group1-shard1of1.bin"


# --- ways of making a hostile folder from a sound one --------------------------------------------


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

# --- refused in process: nothing here is dangerous -----------------------------------------------

HOSTILE: dict[str, tuple[Maker, str]] = {
    # name: how it is made, what the message must say
    "empty": (text(b""), "empty|not JSON"),
    "blank": (text(b"  \n"), ""),
    "cut": (text(b'{"modelTopology": {"class_name": "Seq'), "JSON"),
    "cut later": (document(lambda d: None), ""),  # replaced below
    "not text": (text(b'{"modelTopology": "\xff\xfe", "weightsManifest": []}'), "JSON|UTF-8|utf-8"),
    "utf-16": (text('{"modelTopology": {}, "weightsManifest": []}'.encode("utf-16")), ""),
    "two documents": (text(b'{"modelTopology": {}, "weightsManifest": []}{}'), "JSON"),
    "comments": (text(b'{"modelTopology": {}, /* */ "weightsManifest": []}'), "JSON"),
    "a list": (text(b"[]"), ""),
    "a list of weights": (text(json.dumps(sound().parts()[0]).encode()), "topology|modelTopology|importer"),
    "a number": (text(b"5"), ""),
    "a text": (text(b'"modelTopology weightsManifest"'), ""),
    "null": (text(b"null"), ""),
    "an object": (text(b"{}"), ""),
    "deep": (text(b'{"modelTopology":' + b"[" * 100_000), "JSON|deep|nest"),
    "deep and whole": (text(b'{"modelTopology":' + b"[" * 90_000 + b"]" * 90_000 + b', "weightsManifest": []}'), ""),
    "deep objects": (text(b'{"modelTopology":' + b'{"a":' * 100_000), "JSON|deep|nest"),
    "a long number": (text(b'{"weightsManifest": [], "modelTopology": ' + b"9" * 9000 + b"}"), ""),
    "an architecture alone": (text(json.dumps(sound().topology).encode()), ""),
    "a package.json": (text(b'{"name": "x", "dependencies": {"@tensorflow/tfjs": "4"}}'), ""),

    # kinds of model
    "a graph model": (document(lambda d: d.update(format="graph-model", modelTopology={"node": []})), "graph.model"),
    "a graph model with layers": (top(format="graph-model"), "graph.model"),
    "a graph model without a word": (topology({"node": [{"name": "x", "op": "Placeholder"}], "library": {}, "versions": {"producer": 38}}), "graph|class_name"),

    # topology
    "no topology": (document(lambda d: d.pop("modelTopology")), "modelTopology|topology|importer"),
    "topology null": (topology(None), "topology|weights only"),
    "topology a list": (topology([]), "topology|class_name"),
    "topology a number": (topology(7), "topology|class_name"),
    "topology empty": (topology({}), "class_name|topology"),
    "model_config a list": (topology({"model_config": [1]}), "model_config|class_name"),
    "model_config a text": (topology({"model_config": "Sequential"}), "model_config|class_name|JSON"),
    "no class": (document(lambda d: d["modelTopology"].pop("class_name")), "class_name"),
    "class a number": (document(lambda d: d["modelTopology"].update(class_name=5)), "class"),
    "class of nobody": (document(lambda d: d["modelTopology"].update(class_name="Mine")), "Mine"),
    "no config": (document(lambda d: d["modelTopology"].pop("config")), "config|layers"),
    "config a number": (document(lambda d: d["modelTopology"].update(config=5)), "config|layers"),
    "config a text": (document(lambda d: d["modelTopology"].update(config="layers")), "config|layers"),
    "no layers": (layers(lambda found: found.clear()), "layer"),
    "layers an object": (document(lambda d: d["modelTopology"]["config"].update(layers={})), "layers"),
    "layers of numbers": (layers(lambda found: found.append(3)), "layer"),  # type: ignore[arg-type]
    "a layer without config": (layers(lambda found: found[1].pop("config")), "config"),
    "a layer without class": (layers(lambda found: found[1].pop("class_name")), "layer"),
    "a layer of class null": (layers(lambda found: found[1].update(class_name=None)), "layer|class"),
    "a layer without name": (layers(lambda found: found[1]["config"].pop("name")), "name"),
    "a name of a number": (option(1, name=7), "name.*7"),
    "a name of terminal codes": (option(1, name="\x1b[2J"), "name|weight|manifest"),
    "a name of a surrogate": (option(1, name="\ud800"), ""),
    "two layers of a name": (option(1, name="lstm_LSTM1"), "lstm_LSTM1"),
    "a lambda": (extra("Lambda", function=["4wEAAAA=", None, None]), "extra.*Lambda"),
    "an unknown layer": (extra("Conv9D"), "extra.*Conv9D"),
    "a class in two cases": (extra("lSTM", units=3), "extra"),
    "a layer of a class and a path": (extra("../LSTM"), "extra"),
    "nested very deep": (topology("DEEP"), ""),  # replaced below

    # options
    "units one more": (option(0, units=6), "lstm_LSTM1"),
    "units negative": (option(0, units=-5), "units.*-5"),
    "units zero": (option(0, units=0), "units.*0"),
    "units huge": (option(0, units=10**9), "lstm_LSTM1"),
    "units beyond int64": (option(0, units=10**30), "lstm_LSTM1"),
    "units true": (option(0, units=True), "units.*True"),
    "units a fraction": (option(0, units=5.5), r"units.*5\.5"),
    "units a text": (option(0, units="five"), "units.*five"),
    "units deep": (option(0, units=nested(900)), "units"),
    "no units": (layers(lambda found: found[0]["config"].pop("units")), "units"),
    "bias off": (option(0, use_bias=False), "bias|weight"),
    "bias a text": (option(0, use_bias="yes"), "use_bias.*yes"),
    "a flag of a number": (option(0, go_backwards=3), "go_backwards|goBackwards"),
    "an activation of nobody": (option(0, activation="blurp"), "lstm_LSTM1.*blurp"),
    "an activation of a number": (option(0, activation=5), "lstm_LSTM1.*activation|activation.*5"),
    "an activation deep": (option(0, activation=nested(900)), "activation"),
    "a gate of nobody": (option(0, recurrent_activation="blurp"), "lstm_LSTM1.*blurp"),
    "a gate of a list": (option(0, recurrent_activation=["sigmoid"]), "lstm_LSTM1"),
    "reset_after": (extra("GRU", units=3, reset_after="x"), "extra"),
    "input of negative size": (option(0, batch_input_shape=[None, 6, -3]), "-3"),
    "input of another size": (option(0, batch_input_shape=[None, 6, 4]), "lstm_LSTM1|features|input"),
    "input of a huge size": (option(0, batch_input_shape=[None, 6, 2**40]), ""),
    "input of a text": (option(0, batch_input_shape="x"), "shape"),
    "input of two axes": (option(0, batch_input_shape=[None, 3]), ""),
    "no input size": (layers(lambda found: found[0]["config"].update(batch_input_shape=5)), "shape|input"),
    "two dialects at odds": (option(0, goBackwards=True, go_backwards=False), "backwards|Backwards"),

    # graphs
    "nodes of numbers": (functional([5]), "dense"),
    "nodes of nobody": (functional([[["y", 0, 0, {}]]]), "'?y'?|dense"),
    "a node number too large": (functional([[["x", 3, 0, {}]]]), "dense|x"),
    "a tensor number too large": (functional([[["x", 0, 3, {}]]]), "dense|x"),
    "a node number negative": (functional([[["x", -1, 0, {}]]]), ""),
    "a node number of a text": (functional([[["x", "0", 0, {}]]]), ""),
    "a loop": (functional([[["dense", 0, 0, {}]]]), "dense"),
    "kwargs a list": (functional([[["x", 0, 0, [1]]]]), "dense|x"),
    "nodes null": (functional(None), "dense"),
    "never called": (functional([]), "dense"),
    "outputs of nobody": (functional(SOUND_NODES, outputs=[["y", 0, 0]]), "y"),
    "outputs of numbers": (functional(SOUND_NODES, outputs=[3]), "output"),
    "outputs out of range": (functional(SOUND_NODES, outputs=[["dense", 0, 9]]), "dense"),
    "no outputs": (functional(SOUND_NODES, outputs=[]), "output"),
    "inputs of nobody": (functional(SOUND_NODES, inputs=[["y", 0, 0]]), "y"),
    "no inputs": (functional(SOUND_NODES, inputs=[]), ""),

    # manifest
    "no manifest": (document(lambda d: d.pop("weightsManifest")), "weightsManifest|weight"),
    "manifest null": (top(weightsManifest=None), "weightsManifest|weight"),
    "manifest empty": (top(weightsManifest=[]), "lstm_LSTM1"),
    "manifest an object": (top(weightsManifest={"paths": [SHARD]}), "weightsManifest"),
    "manifest a text": (top(weightsManifest=SHARD), "weightsManifest"),
    "manifest of numbers": (top(weightsManifest=[3]), "weightsManifest"),
    "manifest of lists": (top(weightsManifest=[[]]), "weightsManifest"),
    "no weights": (group(lambda g: g.pop("weights")), "weights"),
    "weights an object": (group(lambda g: g.update(weights={})), "weights"),
    "weights null": (group(lambda g: g.update(weights=None)), "weights"),
    "weights of numbers": (group(lambda g: g.update(weights=[3])), "weights"),
    "weights of texts": (group(lambda g: g.update(weights=["lstm_LSTM1/kernel"])), "weights"),
    "no paths": (group(lambda g: g.pop("paths")), "paths"),
    "paths a text": (paths(SHARD), "paths"),
    "paths null": (paths(None), "paths"),
    "paths an object": (paths({SHARD: 1}), "paths"),
    "paths empty": (paths([]), "lstm_LSTM1/kernel|bytes"),
    "a name missing": (forget(0, "name"), "name"),
    "a name a number": (entry(0, name=5), "name.*5"),
    "a name null": (entry(0, name=None), "name"),
    "a name a list": (entry(0, name=["lstm_LSTM1/kernel"]), "name"),
    "a name empty": (entry(0, name=""), "name|''|lstm_LSTM1"),
    "a name of slashes": (entry(0, name="///"), "///|lstm_LSTM1"),
    "a name of nobody": (entry(0, name="nobody/kernel"), "nobody/kernel|lstm_LSTM1"),
    "a name with :0": (entry(1, name="lstm_LSTM1/what:0"), "what"),
    "a name of a megabyte": (entry(0, name="x" * MB), "x"),
    "a name twice": (entry(1, name="lstm_LSTM1/kernel"), "lstm_LSTM1/kernel.*(twice|2|dupl|more than)|(twice|dupl).*lstm_LSTM1/kernel"),
    "a weight twice": (weights(lambda found: found.append(found[0])), "lstm_LSTM1/kernel"),
    "a weight twice in two groups": (document(lambda d: d["weightsManifest"].append(d["weightsManifest"][0])), "lstm_LSTM1/kernel"),
    "one weight of two names": (weights(lambda found: found.append(found[0].renamed("lstm_LSTM1/lstm_cell/kernel"))), "lstm_LSTM1"),
    "a weight too many": (weights(lambda found: found.append(weight("other/kernel", [1, 2]))), "other/kernel"),
    "a weight too many in a layer": (weights(lambda found: found.append(weight("lstm_LSTM1/gamma", [1, 2]))), "lstm_LSTM1/gamma|lstm_LSTM1.*gamma"),
    "a weight too few": (weights(lambda found: found.pop(1)), "lstm_LSTM1.*recurrent_kernel"),
    "a layer's weights missing": (weights(lambda found: found.__delitem__(slice(3, 5))), "dense_Dense1.*kernel"),
    "names swapped": (weights(lambda found: found.__setitem__(slice(3, 5), [found[3].renamed(found[4].name), found[4].renamed(found[3].name)])), "dense_Dense1"),
    "an optimizer's weight in need": (entry(0, group="optimizer"), "lstm_LSTM1.*kernel"),

    # element types
    "no dtype": (forget(0, "dtype"), "dtype"),
    "dtype null": (entry(0, dtype=None), "dtype"),
    "dtype a number": (entry(0, dtype=4), "dtype"),
    "dtype a list": (entry(0, dtype=["float32"]), "dtype"),
    "dtype of nobody": (entry(0, dtype="float128x"), "float128x"),
    "dtype bfloat16": (entry(0, dtype="bfloat16"), "lstm_LSTM1/kernel.*bfloat16"),
    "dtype object": (entry(0, dtype="O"), "lstm_LSTM1/kernel.*O"),
    "dtype of numpy": (entry(0, dtype="<f4,<f4"), "<f4,<f4"),
    "dtype in capitals": (entry(0, dtype="FLOAT32"), "FLOAT32"),
    "dtype complex": (weights(lambda found: found.__setitem__(0, Weight({**found[0].entry, "dtype": "complex64"}, bytes(480)))), "lstm_LSTM1/kernel.*complex64"),
    "dtype bool": (weights(lambda found: found.__setitem__(0, Weight({**found[0].entry, "dtype": "bool"}, bytes(60)))), "lstm_LSTM1/kernel.*(bool|uint8)"),
    "dtype string": (weights(lambda found: found.__setitem__(0, Weight({**found[0].entry, "dtype": "string"}, bytes(240)))), "lstm_LSTM1/kernel.*string"),
    "a string that is too long": (weights(lambda found: found.insert(0, Weight({"name": "s", "shape": [1], "dtype": "string", "group": "optimizer"}, b"\xff\xff\xff\x7f"))), "'?s'?"),
    "strings without end": (weights(lambda found: found.insert(0, Weight({"name": "s", "shape": [2**40], "dtype": "string", "group": "optimizer"}, bytes(64)))), "'?s'?"),

    # shapes
    "no shape": (forget(0, "shape"), "shape"),
    "shape null": (entry(0, shape=None), "shape"),
    "shape a number": (entry(0, shape=60), "shape"),
    "shape a text": (entry(0, shape="3,20"), "shape"),
    "shape of texts": (entry(0, shape=["3", "20"]), "shape"),
    "shape of floats": (entry(0, shape=[3.5, 20]), r"shape.*3\.5"),
    "shape of booleans": (entry(0, shape=[True, 60]), "shape|lstm_LSTM1/kernel"),
    "shape of null": (entry(0, shape=[None, 20]), "shape"),
    "shape of lists": (entry(0, shape=[[3], [20]]), "shape"),
    "shape deep": (entry(0, shape=nested(900)), "shape"),
    "shape negative": (entry(0, shape=[-3, 20]), "shape.*-3|-3"),
    "shape twice negative": (entry(0, shape=[-3, -20]), "-3"),
    "shape minus one": (entry(0, shape=[-1, 20]), "-1"),
    "shape transposed": (entry(0, shape=[20, 3]), r"lstm_LSTM1"),
    "shape flat": (entry(0, shape=[60]), "lstm_LSTM1"),
    "shape of one axis more": (entry(0, shape=[1, 3, 20]), "lstm_LSTM1"),
    "shape of a scalar": (entry(0, shape=[]), "lstm_LSTM1|bytes"),
    "shape of a row more": (entry(0, shape=[4, 20]), "bytes|lstm_LSTM1"),
    "shape of a row less": (entry(0, shape=[2, 20]), "bytes|lstm_LSTM1"),
    "shape of nothing": (entry(0, shape=[0, 20]), "bytes|lstm_LSTM1"),
    "shape huge": (entry(0, shape=[2**40]), "lstm_LSTM1/kernel"),
    "shape beyond int64": (entry(0, shape=[2**32, 2**32]), "lstm_LSTM1/kernel"),
    "shape that wraps to itself": (entry(0, shape=[2**62 + 15, 4]), "lstm_LSTM1/kernel"),
    "shape beyond float": (entry(0, shape=[10**400]), "lstm_LSTM1/kernel"),
    "shape of nothing times much": (entry(0, shape=[0, 2**62, 2**62]), "lstm_LSTM1/kernel|bytes"),
    "shape of many axes": (entry(0, shape=[1] * 100 + [60]), "lstm_LSTM1/kernel"),
    "shape of a million axes": (entry(0, shape=[1] * 1_000_000), "lstm_LSTM1/kernel"),

    # shards
    "a shard missing": (paths(["nowhere.bin"]), r"nowhere\.bin"),
    "one of two missing": (paths([SHARD, "nowhere.bin"]), r"nowhere\.bin"),
    "a shard short of a byte": (shard(lambda data: data[:-1]), "bytes"),
    "a shard short of all": (shard(lambda data: b""), "bytes"),
    "a shard long by a byte": (shard(lambda data: data + b"\0"), "bytes"),
    "a shard long by a weight": (shard(lambda data: data + bytes(80)), "bytes"),
    "a shard twice": (paths([SHARD, SHARD]), "bytes"),
    "a folder for a shard": (lambda folder: (paths(["part"])(folder), (folder / "part").mkdir()), "part"),

    # numbers
    "nan": (poke(np.nan), "finite.*1 nan or inf"),
    "inf": (poke(-np.inf), "finite.*1 nan or inf"),
    "nan of half precision": (weights(lambda found: found.__setitem__(0, Weight({**found[0].entry, "quantization": {"dtype": "float16"}}, b"\x00\x7e" * 60))), "finite"),
    "a row more": (put(0, np.ones((4, 20))), "lstm_LSTM1"),
    "a column more": (put(0, np.ones((3, 21))), "lstm_LSTM1"),
    "another recurrent kernel": (put(1, np.ones((4, 20))), "lstm_LSTM1"),
    "two biases": (put(2, np.ones((2, 20))), "lstm_LSTM1"),
    "a kernel of no rows": (put(0, np.ones((0, 20))), "lstm_LSTM1"),

    # quantisation
    "no min": (quantised("uint8", min=None), "lstm_LSTM1/kernel.*min"),
    "no scale": (quantised("uint16", scale=None), "lstm_LSTM1/kernel.*scale"),
    "min a text": (quantised("uint8", min="0"), "lstm_LSTM1/kernel.*min"),
    "scale a list": (quantised("uint8", scale=[1]), "lstm_LSTM1/kernel.*scale"),
    "scale true": (quantised("uint8", scale=True), "lstm_LSTM1/kernel.*scale"),
    "scale nan": (quantised("uint8", scale=float("nan")), "lstm_LSTM1/kernel|JSON|NaN|finite"),
    "scale infinite": (quantised("uint8", scale=float("inf")), "lstm_LSTM1/kernel|JSON|Infinity|finite"),
    "scale beyond float": (quantised("uint8", scale=10**400), "lstm_LSTM1/kernel"),
    "scale beyond float32": (quantised("uint8", scale=1e300), "lstm_LSTM1/kernel|finite"),
    "no quantised dtype": (quantised("uint8", dtype=None), "lstm_LSTM1/kernel"),
    "quantised to nobody": (quantised("uint8", dtype="int4"), "lstm_LSTM1/kernel.*int4"),
    "quantised to float32": (entry(0, quantization={"dtype": "float32", "min": 0, "scale": 1}), "lstm_LSTM1/kernel.*float32"),
    "quantised to a number": (entry(0, quantization={"dtype": 8, "min": 0, "scale": 1}), "lstm_LSTM1/kernel"),
    "quantised by a list": (entry(0, quantization=[1]), "lstm_LSTM1/kernel.*quantization"),
    "quantised by a text": (entry(0, quantization="uint8"), "lstm_LSTM1/kernel.*quantization"),
    "quantised, but not the bytes": (entry(0, quantization={"dtype": "uint8", "min": 0, "scale": 1}), "bytes|lstm_LSTM1"),
    "half of whole numbers": (weights(lambda found: found.__setitem__(0, quantise(found[0], "float16").described(dtype="int32"))), "lstm_LSTM1/kernel.*int32"),
}  # fmt: skip


def cut_later(folder: Path) -> None:
    path = sound().write(folder)
    path.write_bytes(path.read_bytes()[:-20])


def nested_very_deep(folder: Path) -> None:
    path = sound().write(folder)
    head, tail = '{"class_name": "Sequential", "config": {"name": "s", "layers": [', "]}}"
    deep = head * 600 + json.dumps(sound().layers[0]) + tail * 600
    path.write_text(
        json.dumps({"modelTopology": "DEEP", "weightsManifest": []}).replace('"DEEP"', deep)
    )


HOSTILE["cut later"] = (cut_later, "JSON")
HOSTILE["nested very deep"] = (nested_very_deep, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Whoever counts to 2**40 is stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 120)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def assert_clear(message: str) -> None:
    assert message
    assert len(message) < LONGEST_LINE
    assert message.isprintable()  # or a file sends codes to the terminal


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.one_in(2)
def test_refused(name: str, folder: Path) -> None:
    make, message = HOSTILE[name]
    make(folder)
    tracemalloc.start()
    try:
        with pytest.raises(
            (npylstm.FormatError, npylstm.UnsupportedError), match=message or None
        ) as error:
            nc.from_tfjs(folder / "model.json")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < len(str(error.value).replace(str(folder), "")) < LONGEST_LINE
    assert peak < 100 * MB


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.one_in(4)
def test_refused_in_one_line(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    HOSTILE[name][0](folder)
    output = tmp_path / "m.npz"
    for before in (None, b"as before"):
        if before is not None:
            output.write_bytes(before)
        line = ["convert", str(folder / "model.json"), str(output), "--record", "0", "--force"]
        assert main(line) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("npylstm: error: ")
        assert err.count("\n") == 1
        assert_clear(err[:-1])
    assert output.read_bytes() == b"as before"
    assert sorted(os.listdir(tmp_path)) == ["m.npz", "model"]


def test_a_sound_folder_is_not_refused(folder: Path, tmp_path: Path) -> None:
    document(lambda d: None)(folder)
    assert nc.from_tfjs(folder / "model.json").parameters == 192
    functional(SOUND_NODES)(folder)
    assert nc.from_tfjs(folder / "model.json").parameters == 8
    assert (
        main(["convert", str(folder / "model.json"), str(tmp_path / "m.npz"), "--record", "0"]) == 0
    )


def test_a_file_of_another_kind(folder: Path) -> None:
    """Named as a model, or given to the function that reads such models."""
    for data in (b"\x89HDF\r\n\x1a\n" + bytes(600), b"PK\x03\x04" + bytes(60), bytes(1000)):
        text(data)(folder)
        with pytest.raises(npylstm.FormatError):
            nc.from_tfjs(folder / "model.json")
    with pytest.raises((npylstm.FormatError, OSError)):
        nc.from_tfjs(folder / "nowhere.json")
    with pytest.raises((npylstm.FormatError, OSError)):
        nc.from_tfjs(folder)


def test_everything_unsupported_is_listed_at_once(folder: Path) -> None:
    def change(found: list[Json]) -> None:
        found[0]["config"]["activation"] = "blurp"
        found[1]["config"]["activation"] = "plop"
        found.append({"class_name": "Lambda", "config": {"name": "mine"}})
        found.append({"class_name": "ConvLSTM2D", "config": {"name": "yours"}})

    layers(change)(folder)
    with pytest.raises(npylstm.UnsupportedError) as error:
        nc.from_tfjs(folder / "model.json")
    for word in (
        "lstm_LSTM1",
        "blurp",
        "dense_Dense1",
        "plop",
        "mine",
        "Lambda",
        "yours",
        "ConvLSTM2D",
    ):
        assert word in str(error.value)
    assert len(error.value.reasons) >= 4


def test_names_twice_in_nested_models(folder: Path) -> None:
    """TensorFlow.js writes such files, and cannot read them: which kernel is whose, nobody knows."""
    layout = read(DATA / "nested")

    def change(w: Weight) -> Weight:
        return w.renamed(w.name.replace("l/", "same/").replace("g/", "same/"))

    def rename(found: list[Json]) -> None:
        graph = next(layer for layer in found if layer["name"] == "innerGraph")
        for inner in graph["config"]["layers"][1:]:
            inner["config"]["name"] = inner["name"] = "same"

    layout = layout.mapped(change).with_layers(rename)
    with pytest.raises(npylstm.NpylstmError, match="same"):
        nc.from_tfjs(layout.write(folder))


@pytest.mark.parametrize("depth", [1, 5, 40])
def test_models_in_models(depth: int, folder: Path) -> None:
    layout = sound().with_layers(lambda found: found.__setitem__(0, sequential(depth)))
    spec = nc.from_tfjs(layout.write(folder))
    plain = nc.from_tfjs(DATA / "lstm/model.json")
    assert [n.config for n in spec.layers if n.weights] == [n.config for n in plain.layers]
    x = np.linspace(-1, 1, 36).reshape(2, 6, 3)
    expected = npylstm.Model(plain, "numpy").predict(x)
    np.testing.assert_array_equal(npylstm.Model(spec, "numpy").predict(x), expected)


# --- paths ---------------------------------------------------------------------------------------

OPENED: list[str] | None = None


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is None:
        return
    if event == "open" and not (int(arguments[2] or 0) & os.O_NOFOLLOW):
        OPENED.append(str(arguments[0]))
    elif event.split(".")[0] in ("socket", "urllib", "subprocess"):
        OPENED.append(event)


sys.addaudithook(watch)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Everything that is opened meanwhile."""
    global OPENED
    OPENED = found = []
    try:
        yield found
    finally:
        OPENED = None


SECRET = "weights.bin"  # stands beside the folder, in the folder "away" and has the right bytes

OUTSIDE = {
    "parent": "../weights.bin",
    "parent of a folder": "part/../../weights.bin",
    "parent of nothing": "nothing/../../weights.bin",
    "parent in dots": "./.././weights.bin",
    "parent twice": "../model/../weights.bin",
    "and back": "../../{parent}/weights.bin",
    "absolute": "{outside}/weights.bin",
    "absolute, doubled": "/{outside}/weights.bin",
    "home": "~/weights.bin",
    "a variable": "$HOME/weights.bin",
    "file": "file://{outside}/weights.bin",
    "file without host": "file:{outside}/weights.bin",
    "http": "http://127.0.0.1:9/weights.bin",
    "https": "https://example.org/weights.bin",
    "a host": "//127.0.0.1/weights.bin",
    "data": "data:application/octet-stream;base64,AAAA",
    "backslashes": "..\\weights.bin",
    "backslashes in a folder": "part\\..\\..\\weights.bin",
    "a mixture": "..\\/weights.bin",
    "a drive": "C:\\weights.bin",
    "a drive's folder": "C:weights.bin",
    "a share": "\\\\host\\share\\weights.bin",
    "percent": "%2e%2e/weights.bin",
    "percent of a percent": "%252e%252e%252fweights.bin",
    "wide dots": "\uff0e\uff0e/weights.bin",
    "a link": "link.bin",
    "a link to a link": "chain.bin",
    "a folder that is a link": "linked/weights.bin",
    "a link to nowhere": "broken.bin",
    "a link to itself": "loop.bin",
    "a device": "zero.bin",
    "nothing": "",
    "the folder": ".",
    "the parent": "..",
    "a slash": "/",
    "nul": "weights.bin\0.txt",
    "nul at the end": "weights.bin\0",
    "a new line": "weights\n.bin",
    "a long name": "w" * 5000,
    "a long path": "w/" * 5000 + "w",
    "a surrogate": "\ud800.bin",
    "terminal codes": "\x1b[2J.bin",
    "a number": 5,
    "null": None,
    "true": True,
    "a list": ["weights.bin"],
    "an object": {"weights.bin": 1},
}


def lay_traps(folder: Path) -> None:
    outside = folder.parent
    ((_, data),) = sound().parts()[1].items()
    (outside / SECRET).write_bytes(data)
    (outside / "away").mkdir()
    (outside / "away" / SECRET).write_bytes(data)
    (folder / "part").mkdir()
    (folder / "link.bin").symlink_to(outside / SECRET)
    (folder / "chain.bin").symlink_to("link.bin")
    (folder / "linked").symlink_to("../away")
    (folder / "broken.bin").symlink_to(outside / "nowhere")
    (folder / "loop.bin").symlink_to("loop.bin")
    (folder / "zero.bin").symlink_to("/dev/zero")


def foreign(opened: list[str], folder: Path) -> list[str]:
    """What was really opened outside the folder, the installation left aside."""
    inside, around = f"{folder.resolve()}/", str(folder.resolve().parent)
    real = [os.path.realpath(p) if os.path.exists(p) else "" for p in opened]
    far = [p for p in real if p.startswith((around, "/dev")) and not f"{p}/".startswith(inside)]
    return far + [p for p in opened if p.split(".")[0] in ("socket", "urllib", "subprocess")]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("function", ["from_tfjs", "convert"])
def test_nothing_outside_the_folder_is_read(
    name: str, function: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_traps(folder)
    monkeypatch.chdir(folder.parent)  # where a careless reader would find it
    monkeypatch.setenv("HOME", str(folder.parent))
    path = OUTSIDE[name]
    if isinstance(path, str) and "{" in path:
        path = path.format(outside=folder.parent, parent=folder.parent.name)
    paths([path])(folder)
    (folder / SHARD).unlink()
    read_it: Callable[[Path], Any] = getattr(nc, function)
    with watched() as opened, pytest.raises(npylstm.FormatError) as error:
        read_it(folder / "model.json")
    assert_clear(str(error.value).replace(str(folder), ""))
    assert not foreign(opened, folder)
    if isinstance(path, str) and path.isprintable() and 2 < len(path) < 100:
        assert path[:40] in str(error.value) or repr(path)[1:41] in str(error.value)


def test_the_traps_would_be_sound_models(folder: Path) -> None:
    lay_traps(folder)
    (folder / "link.bin").unlink()
    (folder / "link.bin").write_bytes((folder.parent / SECRET).read_bytes())
    paths(["link.bin"])(folder)
    with watched() as opened:
        assert nc.from_tfjs(folder / "model.json").parameters == 192
    assert any(p.endswith("link.bin") for p in opened)  # the watch sees
    with watched() as opened:
        (folder / "../away" / SECRET).read_bytes()
        (folder / "linked" / SECRET).read_bytes()
    assert len(foreign(opened, folder)) == 2


def test_a_bad_path_is_refused_before_anything_is_read(folder: Path) -> None:
    lay_traps(folder)
    layout = sound().in_shards(100)
    manifest, _ = layout.parts()
    path = layout.write(folder)
    found = json.loads(path.read_text())
    found["weightsManifest"][0]["paths"][-1] = "../weights.bin"
    path.write_text(json.dumps(found))
    with watched() as opened, pytest.raises(npylstm.FormatError, match=r"\.\./weights\.bin"):
        nc.from_tfjs(path)
    assert len(manifest[0]["paths"]) > 3
    assert not [p for p in opened if p.endswith(".bin")]


@pytest.mark.parametrize(
    "path", ["part/../group1-shard1of1.bin", "inner.bin", ".//group1-shard1of1.bin"]
)
def test_ways_that_stay_inside_are_right_or_refused(path: str, folder: Path) -> None:
    (folder / "part").mkdir()
    paths([path])(folder)
    (folder / "inner.bin").symlink_to(SHARD)
    with contextlib.suppress(npylstm.FormatError):
        assert nc.from_tfjs(folder / "model.json").parameters == 192


def test_a_folder_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    """The folder is where ``model.json`` is, however one came there."""
    sound().write(folder)
    (tmp_path / "shortcut").symlink_to(folder)
    assert nc.from_tfjs(tmp_path / "shortcut/model.json").parameters == 192


def test_no_permission(folder: Path) -> None:
    path = sound().write(folder)
    nc.from_tfjs(path)  # what it needs is imported by now
    (folder / SHARD).chmod(0)
    user = os.geteuid()
    if user == 0:  # root reads everything
        os.seteuid(65534)
    try:
        with pytest.raises((npylstm.FormatError, PermissionError), match="denied"):
            nc.from_tfjs(path)
    finally:
        os.seteuid(user)


# --- sizes: in a process of its own, under limits ------------------------------------------------

LIMITED = """
import resource, signal, sys, time
import npylstm, npylstm_converters as nc
nc.from_tfjs(sys.argv[1])  # imports what it needs
with open("/proc/self/statm") as statm:
    size = int(statm.read().split()[0]) * resource.getpagesize()
limit = size + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
signal.alarm(20)
for path in sys.argv[3:]:
    start = time.process_time()
    try:
        print("converted", nc.from_tfjs(path).parameters)
    except npylstm.NpylstmError as error:
        print("refused", str(error)[:200].replace(chr(10), " "))
    except BaseException as error:
        print("failed", type(error).__name__, str(error)[:200])
    print(round(time.process_time() - start), flush=True)
"""


def limited(path: Path, megabytes: int = 300) -> tuple[str, int]:
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(DATA / "lstm/model.json"),
        str(megabytes),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    said, seconds = done.stdout.splitlines()
    return said, int(seconds)


def sparse(path: Path, size: int) -> None:
    with open(path, "r+b" if path.exists() else "wb") as stream:
        stream.truncate(size)


def a_pipe(folder: Path) -> None:
    paths(["pipe.bin"])(folder)
    os.mkfifo(folder / "pipe.bin")


def many_shards(folder: Path) -> None:
    paths([SHARD] * 200_000)(folder)


def long_shard(folder: Path) -> None:
    sound().write(folder)
    sparse(folder / SHARD, 1 << 40)


def long_json(folder: Path) -> None:
    path = sound().write(folder)
    sparse(path, 1 << 40)  # ends in zeros


def long_entries(folder: Path) -> None:
    document(lambda d: d["weightsManifest"][0]["weights"].extend(
        {"name": f"w{k}", "shape": [0], "dtype": "float32"} for k in range(200_000)
    ))(folder)  # fmt: skip


def many_layers(folder: Path) -> None:
    layers(lambda found: found.extend(
        {"class_name": "Dense", "config": {"name": f"d{k}", "units": 2}} for k in range(5_000)
    ))(folder)  # fmt: skip


COSTLY: dict[str, tuple[Maker, str]] = {
    "a pipe": (a_pipe, "pipe.bin"),
    "many shards": (many_shards, "bytes"),
    "a terabyte of a shard": (long_shard, "bytes"),
    "a terabyte of JSON": (long_json, ""),
    "many entries": (long_entries, "w0|w1|JSON"),
    "many layers": (many_layers, "d0|d1"),
    "deep": (text(b'{"modelTopology":' + b"[" * 5_000_000), ""),
    "many numbers": (top(modelTopology=[0] * 3_000_000), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_costs_little(name: str, folder: Path) -> None:
    make, message = COSTLY[name]
    make(folder)
    said, seconds = limited(folder / "model.json")
    assert said.startswith("refused"), said
    assert any(word in said for word in message.split("|")), said
    assert seconds <= 6


def test_the_limits_let_models_through() -> None:
    assert limited(DATA / "lstm/model.json")[0] == "converted 192"
    assert limited(DATA / "lstm/model.json", megabytes=0)[0].startswith(("failed", "converted"))


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_metadata_of_any_size(size: int, folder: Path) -> None:
    top(userDefinedMetadata={"notes": ["x" * 10] * (size // 13)})(folder)
    said, seconds = limited(folder / "model.json")
    assert said == "converted 192"
    assert seconds <= 6


# --- any value of model.json replaced, any byte flipped ------------------------------------------

NASTY: list[Any] = [
    None, True, 0, -1, 2, 99, 1.5, 10**9, 2**63, 10**400, float("nan"), "", "x", "softmax", "\ud800",
    "a/b", "..", [], {}, [1], [[1]], ["lstm", 0, 0], {"class_name": "ELU", "config": {"alpha": "x"}},
    {"class_name": "Lambda", "config": {}}, {"paths": [], "weights": []}, nested(900),
]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "source", ["lstm_stack", "nested", "seq2seq", "merges", "bidirectional", "embedding", "trained"]
)
def test_any_value_replaced(source: str, folder: Path, tmp_path: Path) -> None:
    """Whatever it says: it is refused, or what is converted can be written and computes."""
    layout = read(DATA / source)
    path = layout.write(folder)
    whole = json.loads(path.read_text())
    nc.from_tfjs(path)
    sites = [p for p in leaves(whole) if p and not any("initializer" in str(k) for k in p)]
    todo = random.Random(3).sample(list(itertools.product(sites, NASTY)), 400)
    wrong, output, refused = [], tmp_path / "m.npz", 0
    for place, value in todo:
        changed = copy.deepcopy(whole)
        target: Any = changed
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        path.write_text(json.dumps(changed))
        what = f"{place} = {value!r:.60}"
        try:
            npylstm.save(nc.from_tfjs(path), output)
        except (npylstm.FormatError, npylstm.UnsupportedError) as error:
            refused += 1
            if len(str(error)) > LONGEST_LINE or not str(error).isprintable():
                wrong.append(f"{what}: says {error!s:.80}")
            continue
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {error!s:.80}")
            continue
        try:
            model = npylstm.load(output, "numpy")
            sizes = [[2 if isinstance(d, str) else d for d in t.shape] for t in model.inputs]
            if all(np.prod(s, dtype=object) < MB for s in sizes):
                model.predict(
                    [np.zeros(s) for s in sizes] if len(sizes) > 1 else np.zeros(sizes[0])
                )
        except Exception as error:
            wrong.append(f"{what}: converted, but {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    assert refused > 50


@pytest.mark.parametrize("source", ["lstm_stack", "seq2seq"])
def test_any_key_removed(source: str, folder: Path) -> None:
    """What is missing has its default in TensorFlow.js, or is asked for."""
    path = read(DATA / source).write(folder)
    whole = json.loads(path.read_text())
    wrong = []
    for place in leaves(whole):
        if not place:
            continue
        changed = copy.deepcopy(whole)
        target: Any = changed
        for key in place[:-1]:
            target = target[key]
        del target[place[-1]]
        path.write_text(json.dumps(changed))
        try:
            nc.from_tfjs(path)
        except (npylstm.FormatError, npylstm.UnsupportedError):
            continue
        except Exception as error:
            wrong.append(f"{place}: {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", ["lstm", "seq2seq"])
def test_any_byte_flipped(source: str, folder: Path) -> None:
    path = read(DATA / source).write(folder)
    data, rng, wrong = path.read_bytes(), random.Random(5), []
    for k in range(600):
        damaged = bytearray(data)
        if k % 3:
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            a, b = sorted(rng.sample(range(len(data)), 2))
            del damaged[a : min(b, a + 40)]
        path.write_bytes(bytes(damaged))
        for function in (nc.from_tfjs, nc.convert):
            try:
                function(path)
            except (npylstm.FormatError, npylstm.UnsupportedError):
                continue
            except Exception as error:
                wrong.append(f"{k}: {function.__name__}: {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


def test_keys_twice(folder: Path) -> None:
    """JSON lets a key stand twice; the last counts in JavaScript, as it does here."""
    path = sound().write(folder)
    found = path.read_text()
    path.write_text(found.replace('"units": 5', '"units": 7, "units": 5'))
    assert found != path.read_text()
    with contextlib.suppress(npylstm.FormatError):
        assert nc.from_tfjs(path).parameters == 192


def test_a_second_document_of_weights_is_not_asked_for(folder: Path) -> None:
    """``weightSpecs``, as in memory dumps of models, are no manifest."""
    manifest, _ = sound().parts()
    sound().write(folder)
    write_json(folder, {**sound().document, "weightSpecs": manifest[0]["weights"]})
    with pytest.raises(npylstm.NpylstmError, match="weight"):
        nc.from_tfjs(folder / "model.json")
