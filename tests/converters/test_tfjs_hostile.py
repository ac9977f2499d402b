"""Malicious models of TensorFlow.js: refused in one line."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_hostile import (
    LONGEST_LINE,
    MB,
    SHARD,
    SOUND_NODES,
    Maker,
    assert_clear,
    document,
    entry,
    extra,
    forget,
    functional,
    group,
    layers,
    nested,
    option,
    paths,
    poke,
    put,
    quantised,
    shard,
    sound,
    text,
    top,
    topology,
    weights,
)
from tfjs_layout import Weight, quantise, weight

import npylstm
from npylstm.cli import main

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


pytestmark = pytest.mark.usefixtures("deadline")


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
