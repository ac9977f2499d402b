"""SavedModel folders and checkpoints: converted without TensorFlow, compared with Keras."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from npylstm_converters.toolkit.wire import Message
from tensorflow_layout import field, write

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.cli import main

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tests/data/tensorflow/functional"
EXPECTED = np.load(f"{FOLDER}.expected.npz")
INPUTS = [EXPECTED["past"], EXPECTED["static"]]
# Sums of a few dozen float32 products per output, in another order than TensorFlow's.
ROUNDING = 1e-5


def agree(spec: ModelSpec, inputs: Any, expected: Any) -> None:
    """The model gives the framework's outputs, up to rounding of the largest."""
    made = npylstm.Model(spec).predict(inputs)
    y = np.asarray(expected)
    np.testing.assert_allclose(made, y, rtol=0, atol=ROUNDING * float(np.abs(y).max()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


# --- what needs no framework ----------------------------------------------------------------------
@pytest.mark.parametrize("how", ["", "saved_model.pb", "keras_metadata.pb"])
def test_a_folder_and_its_main_file(how: str) -> None:
    spec = nc.from_savedmodel(FOLDER / how)
    agree(spec, INPUTS, EXPECTED["y"])
    assert [t.name for t in spec.inputs] == ["past", "static"]
    assert spec.provenance["source_format"] == "TensorFlow SavedModel"
    assert spec.provenance["proof"] == "proven"
    assert "saved by TensorFlow 2.21.0" in spec.provenance["decisions"]


def test_convert_finds_the_importer() -> None:
    assert nc.convert(FOLDER) == nc.from_savedmodel(FOLDER)
    assert nc.find_importer(FOLDER).name == "savedmodel"


def test_neither_tensorflow_nor_protobuf_is_imported() -> None:
    code = (
        "import sys, npylstm_converters as nc; nc.convert(sys.argv[1]); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'tensorflow', 'keras', 'tf_keras', 'google', 'h5py', 'snappy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_variable_of_the_model_is_in_the_ledger() -> None:
    """The optimizer's slots and Keras' lists of the same variables are not."""
    spec = nc.from_savedmodel(FOLDER)
    sources = [entry["source"] for entry in spec.provenance["tensors"]]
    assert len(sources) == len(set(sources)) == 25
    assert "encoder/bidirectional/backward_layer/cell/recurrent_kernel" in sources
    assert "cells/cell_1/bias" in sources
    assert "each/layer/kernel" in sources


def test_metadata_inside_the_model(folder: Path) -> None:
    """TensorFlow 2.3 and 2.4 write no keras_metadata.pb; the same texts are in saved_model.pb."""
    beside = folder / "keras_metadata.pb"
    nodes = Message(beside.read_bytes(), 1).messages(1, 2, 4, 5)
    users = {n.integer(2): field(1, bytes(n.data(4))) + field(3, bytes(n.data(5))) for n in nodes}
    objects = [field(4, users[k]) if k in users else b"" for k in range(max(users) + 1)]
    graph = b"".join(field(1, node) for node in objects)
    info = field(4, b"serve") + field(5, b"2.4.1")
    (folder / "saved_model.pb").write_bytes(field(2, field(1, info) + field(7, graph)))
    for _ in range(2):  # a file that a later version left there belongs to another model
        spec = nc.convert(folder)
        agree(spec, INPUTS, EXPECTED["y"])
        assert "saved by TensorFlow 2.4.1" in spec.provenance["decisions"]
        beside.write_bytes(b"")


def test_a_folder_without_keras(folder: Path) -> None:
    (folder / "keras_metadata.pb").unlink()
    with pytest.raises(UnsupportedError) as caught:
        nc.convert(folder)
    text = str(caught.value)
    assert "holds functions and weights, as model.export() and tf.saved_model.save" in text
    assert "model.save('model.keras')" in text
    assert "--architecture model.json" in text
    assert f"npylstm info {folder}" in text


def test_layers_are_for_sources_without_a_config() -> None:
    with pytest.raises(FormatError, match="layers: only for weights-only files"):
        nc.convert(FOLDER, layers="gru -> out")


def test_the_wrong_number_of_layers(folder: Path) -> None:
    other = {"class_name": "Sequential", "config": {"name": "s", "layers": [
        {"class_name": "Dense", "config": {"name": "only", "units": 2}}]}}  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"has \d+ layers, the model has 1: only; is it"):
        nc.convert(folder, architecture=json.dumps(other))


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="neither a SavedModel folder nor a checkpoint"):
        nc.from_savedmodel(tmp_path)
    with pytest.raises(FormatError, match="no importer knows"):
        nc.convert(tmp_path)
    with pytest.raises(FileNotFoundError):
        nc.convert(tmp_path / "nothing")
    with pytest.raises(UnsupportedError, match="from_savedmodel reads the SavedModel folders"):
        nc.from_keras(FOLDER)


# --- checkpoints without objects, as TensorFlow 1 writes them -------------------------------------
RNG = np.random.default_rng(3)
LSTM = {
    "lstm/kernel": RNG.normal(size=(3, 16)), "lstm/recurrent_kernel": RNG.normal(size=(4, 16)),
    "lstm/bias": RNG.normal(size=16), "out/kernel": RNG.normal(size=(4, 2)),
    "out/bias": RNG.normal(size=2), "out/kernel/Adam": np.zeros((4, 2)),
    "beta1_power": np.float64(0.9), "global_step": np.float64(7),
}  # fmt: skip
CHAIN = "lstm(last, tanh, recurrent_activation=sigmoid) -> out(linear)"


def first(tmp_path: Path, arrays: dict[str, Any] = LSTM) -> Path:
    return write(tmp_path / "ck", {k: (1, np.asarray(x, "<f4")) for k, x in arrays.items()})


def test_a_chain_of_plain_names(tmp_path: Path) -> None:
    spec = nc.convert(first(tmp_path), layers=CHAIN)
    assert [layer.name for layer in spec.layers] == ["lstm", "out"]
    np.testing.assert_array_equal(
        spec["lstm"].weights["U_f"], LSTM["lstm/recurrent_kernel"][:, 4:8].astype("f4")
    )
    assert spec.provenance["proof"] == "stated"


def test_info_lists_the_layers_of_a_prefix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = first(tmp_path, {k: x for k, x in LSTM.items() if k.startswith("lstm")})
    assert main(["info", str(prefix)]) == 0
    out = capsys.readouterr().out
    assert "lstm: LSTM(3 -> 4)" in out
    command = out.splitlines()[-1].strip()
    assert command == f'npylstm convert {prefix} MODEL.npz --layers "{CHAIN.split(" ->")[0]}"'


def test_the_cell_of_tensorflow_1_is_no_dense_layer(tmp_path: Path) -> None:
    cell = {f"rnn/basic_lstm_cell/{k}": LSTM[f"lstm/{k}"] for k in ("kernel", "bias")}
    with pytest.raises(UnsupportedError, match=r"rnn: holds basic_lstm_cell.*shows no layer"):
        nc.convert(first(tmp_path, cell), layers="rnn")


@pytest.mark.parametrize(
    "how", ["ck.index", "ck.meta", "ck.data-00000-of-00001", "checkpoint", "", "ck"]
)
def test_ways_to_name_a_checkpoint(tmp_path: Path, how: str) -> None:
    first(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/somewhere/else/ck"\n')
    (tmp_path / "ck.meta").write_bytes(b"graph")
    assert nc.convert(tmp_path / how, layers=CHAIN).layers[0].name == "lstm"


def test_names_that_collide_lose_no_variable(tmp_path: Path) -> None:
    """Two layers of one name, and a path that is the name of another layer."""
    names = ("a/out/kernel", "b/out/kernel", "out/kernel", "c/b/out/bias")
    arrays = {name: np.zeros((2, 3)[: 2 - name.endswith("bias")]) for name in names}
    with pytest.raises(UnsupportedError) as caught:
        nc.convert(first(tmp_path, arrays), layers="Dropout")
    for path in ("a/out", "b/out", "out", "c/b/out"):
        assert f"{path}: " in str(caught.value)


def test_a_folder_of_checkpoints(tmp_path: Path) -> None:
    for name in ("ck-1", "ck-2"):
        write(tmp_path / name, {"v": (1, np.zeros(3, "<f4"))})
    with pytest.raises(
        FormatError, match="several checkpoints: give the path of one of ck-1, ck-2"
    ):
        nc.convert(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ck-3"\n')
    with pytest.raises(FormatError, match="names 'ck-3', and there is no such checkpoint"):
        nc.convert(tmp_path)


# --- models of the frameworks ---------------------------------------------------------------------
def randomise(model: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.uniform(-0.6, 0.6, weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)
    return model


X = np.random.default_rng(1).normal(size=(3, 6, 3)).astype("f4")


def stack(keras: Any) -> Any:
    layers = keras.layers
    own = [
        layers.Input((6, 3)), layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        layers.Dropout(0.1), layers.LayerNormalization(), layers.LSTM(4), layers.Dense(2),
    ]  # fmt: skip
    return randomise(keras.Sequential(own))


def branches(keras: Any) -> Any:
    """A shared layer, a model inside, attention, and operations between layers."""
    layers = keras.layers
    x = layers.Input((6, 3))
    inner = keras.Sequential(
        [layers.Input((6, 3)), layers.SimpleRNN(3, return_sequences=True), layers.Dense(3)]
    )
    y = inner(inner(x)) + x
    y = layers.MultiHeadAttention(2, 3)(y, y)
    y = layers.TimeDistributed(layers.Dense(4))(y)[:, 1:]
    return randomise(keras.Model(x, layers.Dense(2)(layers.LSTM(3)(y))))


Saver = Callable[[Any, Path], Path]


def weights_2(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "w", save_format="tf")
    return folder / "w"


def checkpoint(model: Any, folder: Path) -> Path:
    import tensorflow as tf

    tf.train.Checkpoint(net=model, step=tf.Variable(1)).save(folder / "w")
    return folder


@pytest.mark.parametrize("make", [stack, branches])
@pytest.mark.parametrize(
    ("package", "save"), [("tf_keras", weights_2), ("tf_keras", checkpoint), ("keras", checkpoint)]
)
def test_checkpoints_with_an_architecture(
    tmp_path: Path, package: str, save: Saver, make: Callable[[Any], Any]
) -> None:
    keras = pytest.importorskip(package)
    model = make(keras)
    path = save(model, tmp_path)
    (tmp_path / "model.json").write_text(model.to_json())
    spec = nc.from_savedmodel(path, architecture=tmp_path / "model.json")
    agree(spec, X, model(X))
    runner = nc.find_importer(path).runner(path, spec, architecture=tmp_path / "model.json")
    report = npylstm.Model(nc.record(spec, runner, 2)).verify()
    assert report.passed
    assert runner.description.startswith(package)


def test_other_names_in_the_architecture_are_noted(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    path = weights_2(stack(keras), tmp_path)
    model = stack(keras)  # Keras counts on: lstm_1
    model.load_weights(path)
    spec = nc.convert(path, architecture=model.to_json())
    agree(spec, X, model(X))
    (note,) = (d for d in spec.provenance["decisions"] if "paired by the order" in d)
    name = model.layers[3].name
    assert f" for {name}" in note


def test_several_models_in_a_checkpoint(tmp_path: Path) -> None:
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("tf_keras")
    models = {name: stack(keras) for name in ("encoder", "decoder")}
    tf.train.Checkpoint(**models).write(tmp_path / "ck")
    architecture = models["decoder"].to_json()
    with pytest.raises(UnsupportedError, match="several models: say which by --key"):
        nc.convert(tmp_path / "ck", architecture=architecture)
    for name, model in models.items():
        spec = nc.convert(tmp_path / "ck", architecture=architecture, key=name)
        agree(spec, X, model(X))
    with pytest.raises(FormatError, match="key: no object 'other', expected one of"):
        nc.convert(tmp_path / "ck", key="other", architecture=architecture)


def test_the_command_of_info_converts_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    keras = pytest.importorskip("tf_keras")
    model = stack(keras)
    path = weights_2(model, tmp_path)
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "layers without variables (number 2 of 5)" in out
    command = shlex.split(out.splitlines()[-1])
    command[3] = str(tmp_path / "model.npz")
    assert main([*command[1:], "--record", "1"]) == 0
    agree(npylstm.load(tmp_path / "model.npz").spec, X, model(X))
    assert "the engine agrees with tf_keras" in capsys.readouterr().out


def test_a_subclassed_model_by_its_function_and_by_a_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder holds its function, and the configs of its layers: their order may be stated."""
    keras = pytest.importorskip("tf_keras")

    class Own(keras.Model):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rest = [keras.layers.SimpleRNN(4, activation="relu", name="reader")]
            self.last = keras.Sequential([keras.layers.Dense(3, activation="softsign")], "head")

        def call(self, inputs: Any) -> Any:
            return self.last(self.rest[0](inputs))

    model = Own()
    model(X)
    randomise(model)
    model.save(tmp_path / "own", save_format="tf")
    spec = nc.convert(tmp_path / "own", layers="reader -> head")
    agree(spec, X, model(X))
    agree(nc.convert(tmp_path / "own"), X, model(X))
    assert main(["info", str(tmp_path / "own")]) == 0
    assert "the function of its signature serving_default" in capsys.readouterr().out
    with pytest.raises(UnsupportedError, match="its activation is 'relu' in the file and 'tanh'"):
        nc.convert(tmp_path / "own", layers="reader(tanh) -> head")


def test_functions_of_keras_3_with_an_architecture(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    own = [layers.Input((6, 3)), layers.Dense(4), layers.SimpleRNN(3), layers.Dense(2)]
    model = randomise(keras.Sequential(own))
    model.export(tmp_path / "exported", verbose=False)
    agree(nc.convert(tmp_path / "exported"), X, model(X))
    spec = nc.convert(tmp_path / "exported", architecture=model.to_json())
    agree(spec, X, model(X))
    assert spec.provenance["framework_version"] == "3"


def test_code_of_the_user_is_never_run(tmp_path: Path) -> None:
    """A Lambda holds marshalled code; npylstm takes a function of the caller's instead."""
    keras = pytest.importorskip("tf_keras")
    layers = keras.layers
    x = layers.Input((6, 3))
    y = layers.Lambda(lambda x: 3.0 * x, name="thrice")(layers.SimpleRNN(2)(x))
    model = randomise(keras.Model(x, layers.Dense(1)(y)))
    model.save(tmp_path / "m", save_format="tf")
    with pytest.raises(UnsupportedError, match="thrice: layer class 'Lambda' is not supported"):
        nc.convert(tmp_path / "m")
    spec = nc.convert(tmp_path / "m", custom={"thrice": lambda x: 3.0 * x})
    agree(spec, X, model(X))
    importer = nc.find_importer(tmp_path / "m")
    with pytest.raises(npylstm.NpylstmError, match="whose code is not run"):
        importer.runner(tmp_path / "m", spec)


def test_half_types_are_noted(tmp_path: Path) -> None:
    arrays = {k: (19, np.asarray(x, "<f2")) for k, x in LSTM.items() if "/" in k}
    spec = nc.convert(write(tmp_path / "ck", arrays), layers=CHAIN)
    (note,) = (d for d in spec.provenance["decisions"] if "float16" in d)
    assert note.startswith("stored as float16, and float32 here: ")
    assert spec.dtype == "float32"
