"""Weights-only HDF5 files of Keras 1 and 2, joined by what the user says.

The framework's own model is what the numbers are compared with; the file has its weights alone.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graphs import assert_parity, make_inputs, randomise, run

import npylstm
from npylstm import FormatError, NpylstmError, UnsupportedError
from npylstm.cli import main

Array = np.ndarray[Any, Any]
DATA = Path(__file__).parent.parent / "data" / "keras"
L = tf_keras.layers


def sequential(shape: tuple[Any, ...], *layers: Any) -> Any:
    return tf_keras.Sequential([L.InputLayer(shape), *layers])


class Said(NamedTuple):
    """A model, what is said about it, and each part of that with what is missed without it.

    ``missing`` has the part to leave out, by what to replace it, the layer that is named then and
    a word of what is asked for.
    """

    build: Callable[[], Any]
    layers: str
    missing: tuple[tuple[str, str, str, str], ...] = ()
    steps: int = 6


def lstm_stack() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, return_sequences=True, name="lstm_1"), L.Dropout(0.5, name="dropout_1"),
        L.LSTM(4, name="lstm_2"), L.Dense(3, activation="softmax", name="dense_1"),
    )  # fmt: skip


def lstm_sequences() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, return_sequences=True, name="lstm_1"),
        L.TimeDistributed(L.Dense(2, activation="relu"), name="time_distributed_1"),
    )  # fmt: skip


def dense_over_steps() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, return_sequences=True, name="lstm_1"),
        L.Dense(2, activation="tanh", name="dense_1"),
    )  # fmt: skip


def gru_after() -> Any:
    return sequential((None, 3), L.GRU(5, name="gru_1"), L.Dense(2, name="dense_1"))


def gru_before() -> Any:
    return sequential(
        (None, 3), L.GRU(5, reset_after=False, return_sequences=True, name="gru_1"),
        L.GRU(4, reset_after=False, name="gru_2"), L.Dense(2, name="dense_1"),
    )  # fmt: skip


def gru_bare(reset_after: bool) -> Callable[[], Any]:
    def build() -> Any:
        return sequential(
            (None, 3), L.GRU(5, use_bias=False, reset_after=reset_after, name="gru_1"),
            L.Dense(2, name="dense_1"),
        )  # fmt: skip

    return build


def simple() -> Any:
    return sequential(
        (None, 3), L.SimpleRNN(5, return_sequences=True, use_bias=False, name="simple_rnn_1"),
        L.SimpleRNN(4, activation="relu", name="simple_rnn_2"),
        L.Dense(1, activation="sigmoid", name="dense_1"),
    )  # fmt: skip


def both_ways() -> Any:
    return sequential(
        (None, 3), L.Bidirectional(L.LSTM(4, return_sequences=True), name="bidirectional_1"),
        L.Bidirectional(L.GRU(3), merge_mode="sum", name="bidirectional_2"),
        L.Dense(2, name="dense_1"),
    )  # fmt: skip


def embedding() -> Any:
    return tf_keras.Sequential([
        L.InputLayer((None,), dtype="int32"), L.Embedding(9, 4, name="embedding_1"), L.SpatialDropout1D(0.2, name="spatial_dropout1d_1"),
        L.LSTM(5, name="lstm_1"), L.Dense(1, activation="sigmoid", name="dense_1"),
    ])  # fmt: skip


def convolution() -> Any:
    return sequential(
        (None, 3), L.Conv1D(4, 3, padding="same", activation="relu", name="conv1d_1"),
        L.MaxPooling1D(2, name="max_pooling1d_1"),
        L.Conv1D(5, 2, strides=2, name="conv1d_2"),
        L.BatchNormalization(epsilon=0.01, name="batch_normalization_1"),
        L.Activation("tanh", name="activation_1"), L.LSTM(4, name="lstm_1"),
        L.Dense(2, name="dense_1"),
    )  # fmt: skip


def autoencoder() -> Any:
    return sequential(
        (None, 3), L.LSTM(6, activation="relu", name="lstm_1"),
        L.RepeatVector(5, name="repeat_vector_1"),
        L.LSTM(6, activation="relu", return_sequences=True, name="lstm_2"),
        L.TimeDistributed(L.Dense(3), name="time_distributed_1"),
    )  # fmt: skip


def dense_only() -> Any:
    return sequential(
        (3,), L.Dense(5, activation="relu", name="dense_1"), L.BatchNormalization(name="bn"),
        L.Dense(2, use_bias=False, name="dense_2"),
    )  # fmt: skip


SAID: dict[str, Said] = {
    "lstm_stack": Said(
        lstm_stack, "lstm_1 -> dropout_1 -> lstm_2(last) -> dense_1(softmax)",
        (("lstm_2(last)", "lstm_2", "lstm_2", "lstm_2(last)"),),
    ),
    "lstm_sequences": Said(
        lstm_sequences, "lstm_1(sequences) -> time_distributed_1(relu)",
    ),
    "dense_over_steps": Said(
        dense_over_steps, "lstm_1(sequences) -> dense_1(tanh)",
        (("(sequences)", "", "lstm_1", "lstm_1(last)"),),
    ),
    "gru_after": Said(
        gru_after, "gru_1(last) -> dense_1(linear)",
        (("gru_1(last)", "gru_1", "gru_1", "gru_1(last)"),),
    ),
    "gru_before": Said(
        gru_before, "gru_1 -> gru_2(last) -> dense_1(linear)",
        (("gru_2(last)", "gru_2", "gru_2", "gru_2(last)"),),
    ),
    "gru_bare_after": Said(
        gru_bare(True), "gru_1(last, reset_after=true) -> dense_1(linear)",
        ((", reset_after=true", "", "gru_1", "reset_after"),),
    ),
    "gru_bare_before": Said(
        gru_bare(False), "gru_1(last, reset_after=false) -> dense_1(linear)",
        ((", reset_after=false", "", "gru_1", "reset_after"),),
    ),
    "simple": Said(
        simple, "simple_rnn_1 -> simple_rnn_2(last, relu) -> dense_1(sigmoid)",
        (("(last, relu)", "(relu)", "simple_rnn_2", "simple_rnn_2(last)"),),
    ),
    "both_ways": Said(
        both_ways,
        "bidirectional_1(merge_mode=concat) -> bidirectional_2(last, merge_mode=sum) -> dense_1(linear)",
        (("last, ", "", "bidirectional_2", "bidirectional_2(last)"),
         ("(merge_mode=concat)", "", "bidirectional_1", "merge_mode")),
    ),
    "embedding": Said(
        embedding, "embedding_1(mask_zero=false) -> Dropout -> lstm_1(last) -> dense_1(sigmoid)",
        (("(last)", "", "lstm_1", "lstm_1(last)"),),
    ),
    "convolution": Said(
        convolution,
        "conv1d_1(relu, padding=same, strides=1, dilation_rate=1) -> max_pooling1d_1(pool_size=2) -> "
        "conv1d_2(linear, padding=valid, strides=2, dilation_rate=1) -> batch_normalization_1(epsilon=0.01) -> "
        "activation_1(tanh) -> lstm_1(last) -> dense_1(linear)",
        (("padding=same, ", "", "conv1d_1", "padding"),
         ("strides=1, ", "", "conv1d_1", "strides"),
         ("padding=valid, ", "", "conv1d_2", "padding"),
         ("strides=2, ", "", "conv1d_2", "strides"),
         ("(pool_size=2)", "", "max_pooling1d_1", "pool_size"),
         ("(epsilon=0.01)", "", "batch_normalization_1", "epsilon"),
         ("activation_1(tanh)", "activation_1", "activation_1", "activation"),
         ("lstm_1(last)", "lstm_1", "lstm_1", "lstm_1(last)")),
        12,
    ),
    "autoencoder": Said(
        autoencoder,
        "lstm_1(last, relu) -> repeat_vector_1(n=5) -> lstm_2(sequences, relu) -> "
        "time_distributed_1(linear)",
        (("(n=5)", "", "repeat_vector_1", "n=1"),),
    ),
    "dense_only": Said(
        dense_only, "dense_1(relu) -> bn(epsilon=0.001) -> dense_2(linear)",
        (("(epsilon=0.001)", "", "bn", "epsilon"),),
    ),
}  # fmt: skip


def weights_of(model: Any, folder: Path) -> Path:
    """Its weights alone, in the older form of HDF5; the statistics are what a variance can be."""
    randomise(model, 5)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta, mean, np.abs(variance) + 0.5])
    path = folder / "x_weights.h5"
    model.save_weights(path)
    return path


class Built(NamedTuple):
    """A model, its file of weights, what the framework computes."""

    model: Any
    path: Path
    runs: list[Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """Models by name; nobody changes them or their files."""

    @functools.cache
    def make(name: str) -> Built:
        model = SAID[name].build()
        path = weights_of(model, tmp_path_factory.mktemp(name))
        return Built(model, path, runs_of(model, SAID[name].steps))

    return make


def runs_of(model: Any, steps: int) -> list[Any]:
    given = [make_inputs(model, 3, steps, 0), make_inputs(model, 1, steps + 5, 1)]
    return [(xs, run(model, xs)) for xs in given]


def edited(path: Path, **attributes: Any) -> Path:
    """The same file with other attributes; None takes one away."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            del file.attrs[name]
            if value is not None:
                file.attrs[name] = value
    return path


def run_main(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# --- parity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAID)
def test_parity(name: str, built: Callable[[str], Built]) -> None:
    said = SAID[name]
    model, path, runs = built(name)
    spec = nc.convert(path, layers=said.layers)
    assert spec.to_json() == nc.from_keras(path, layers=said.layers).to_json()
    assert_parity(spec, runs)
    sources = [e["source"] for e in spec.provenance["tensors"] if e["layer"]]
    assert len(sources) == len(model.weights)
    assert any(said.layers.split(" -> ")[0] in text for text in spec.provenance["decisions"])


def test_spaces_do_not_matter(tmp_path: Path) -> None:
    model = lstm_stack()
    path = weights_of(model, tmp_path)
    text = " lstm_1->dropout_1  ->lstm_2 ( last )-> dense_1( softmax ) "
    assert_parity(nc.from_keras(path, layers=text), runs_of(model, 6))


@pytest.mark.parametrize("left_out", [" -> dropout_1", ""])
def test_layers_without_weights_may_be_left_out_or_added(left_out: str, tmp_path: Path) -> None:
    model = lstm_stack()
    path = weights_of(model, tmp_path)
    text = SAID["lstm_stack"].layers.replace(left_out, "") if left_out else (
        "lstm_1 -> Dropout -> lstm_2(last) -> Dropout -> dense_1(linear) -> Activation(softmax)"
    )  # fmt: skip
    spec = nc.from_keras(path, layers=text)
    assert_parity(spec, runs_of(model, 6))


@pytest.mark.parametrize("gates", ["sigmoid", "hard_sigmoid"])
def test_gates_and_activations_can_be_said(gates: str, tmp_path: Path) -> None:
    model = sequential(
        (None, 3),
        L.LSTM(5, recurrent_activation=gates, activation="elu", go_backwards=True, name="lstm_1"),
        L.Dense(2, name="dense_1"),
    )
    path = weights_of(model, tmp_path)
    text = f"lstm_1(last, elu, recurrent_activation={gates}, go_backwards=true) -> dense_1(linear)"
    assert_parity(nc.from_keras(path, layers=text), runs_of(model, 6))


def test_a_mask_can_be_said(tmp_path: Path) -> None:
    model = sequential(
        (None,), L.Embedding(9, 4, mask_zero=True, name="embedding_1"),
        L.LSTM(5, name="lstm_1"), L.Dense(2, name="dense_1"),
    )  # fmt: skip
    path = weights_of(model, tmp_path)
    ids = np.array([[1, 2, 0, 0], [3, 0, 4, 5], [0, 0, 0, 8]], "float32")
    expected = run(model, [ids])
    text = "embedding_1(mask_zero=true) -> lstm_1(last) -> dense_1(linear)"
    assert_parity(nc.from_keras(path, layers=text), [([ids], expected)])
    blind = nc.from_keras(path, layers=text.replace("mask_zero=true", "mask_zero=false"))
    assert not np.allclose(npylstm.Model(blind).predict(ids), expected[0], atol=1e-3)


def test_what_was_left_to_defaults_is_told(tmp_path: Path) -> None:
    path = weights_of(lstm_stack(), tmp_path)
    spec = nc.from_keras(path, layers=SAID["lstm_stack"].layers)
    told = "\n".join(spec.provenance["decisions"])
    for layer in ("lstm_1", "lstm_2"):
        assert f"{layer}: activation tanh" in told
        assert f"{layer}: recurrent_activation sigmoid" in told


# --- what must be said ---------------------------------------------------------------------------


MISSING = [(name, *missing) for name, said in SAID.items() for missing in said.missing]


@pytest.mark.parametrize(
    ("name", "part", "instead", "layer", "word"), MISSING,
    ids=[f"{m[0]}-{m[3]}-{m[4]}" for m in MISSING],
)  # fmt: skip
def test_what_is_not_said_is_asked_for(
    name: str, part: str, instead: str, layer: str, word: str, built: Callable[[str], Built]
) -> None:
    said, path = SAID[name], built(name).path
    assert said.layers.count(part) == 1
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(path, layers=said.layers.replace(part, instead))
    (reason,) = caught.value.reasons
    assert reason.startswith(f"{layer}: ")
    assert word in reason
    assert f"write {layer}(" in reason


def test_everything_missing_is_listed_at_once(tmp_path: Path) -> None:
    said = SAID["convolution"]
    path = weights_of(said.build(), tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(path, layers=re.sub(r"\([^)]*\)", "", said.layers))
    others = [name for name in said_layers(said) if name != "dense_1"]
    assert [reason.split(":")[0] for reason in caught.value.reasons] == others


@pytest.mark.parametrize(
    ("name", "layer", "stated"),
    [("lstm_stack", "dense_1", "(softmax)"), ("lstm_sequences", "time_distributed_1", "(relu)"),
     ("gru_after", "dense_1", "(linear)"), ("convolution", "conv1d_1", "(relu, "),
     ("autoencoder", "time_distributed_1", "(linear)"), ("dense_only", "dense_2", "(linear)")],
)  # fmt: skip
def test_an_activation_that_nobody_states_is_linear(
    name: str, layer: str, stated: str, built: Callable[[str], Built]
) -> None:
    """As in Keras; told as assumed, since the file does not prove it."""
    said, path = SAID[name], built(name).path
    before, behind = said.layers.split(f"{layer}{stated}")
    unsaid = stated.replace(stated.strip("(), "), "").replace(", ", "").replace("()", "")
    linear = stated.replace(stated.strip("(), "), "linear")
    silent = nc.from_keras(path, layers=f"{before}{layer}{unsaid}{behind}")
    told = nc.from_keras(path, layers=f"{before}{layer}{linear}{behind}")
    assert silent.layers == told.layers
    note = f"{layer}: activation linear, Keras' default, because the chain does not state it"
    assert note in silent.provenance["decisions"]
    assert f"assumed: {note}" in silent.provenance["stated"]
    assert note not in told.provenance["decisions"]


def said_layers(said: Said) -> list[str]:
    return [step.split("(")[0] for step in said.layers.split(" -> ")]


@pytest.mark.parametrize("version", [None, "2.2.4-tf"])
@pytest.mark.parametrize("name", ["lstm_stack", "gru_before", "both_ways"])
def test_gates_are_asked_for_where_no_version_tells(
    name: str, version: str | None, tmp_path: Path
) -> None:
    said = SAID[name]
    model = said.build()
    path = edited(weights_of(model, tmp_path), keras_version=version)
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(path, layers=said.layers)
    recurrent = [n for n in said_layers(said) if n.startswith(("lstm", "gru", "bidirectional"))]
    assert [reason.split(":")[0] for reason in caught.value.reasons] == recurrent
    assert all("recurrent_activation=sigmoid" in reason for reason in caught.value.reasons)
    gates = "recurrent_activation=sigmoid"
    text = " -> ".join(
        step.replace("(", f"({gates}, ") if "(" in step else f"{step}({gates})"
        for step in said.layers.split(" -> ")
    )
    for other in set(said_layers(said)) - set(recurrent):
        text = text.replace(f"{other}({gates}, ", f"{other}(").replace(f"{other}({gates})", other)
    assert_parity(nc.from_keras(path, layers=text), runs_of(model, said.steps))


def test_simple_rnn_has_no_gates_to_ask_for(tmp_path: Path) -> None:
    model = simple()
    path = edited(weights_of(model, tmp_path), keras_version=None)
    spec = nc.from_keras(path, layers=SAID["simple"].layers)
    assert_parity(spec, runs_of(model, 6))


def leaky() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, name="lstm_1"), L.LeakyReLU(alpha=0.1, name="leaky_re_lu_1"),
        L.Dense(2, name="dense_1"),
    )  # fmt: skip


UNTOLD = {
    "mask_zero": (embedding, "embedding_1 -> lstm_1(last) -> dense_1(sigmoid)", "embedding_1"),
    "alpha": (leaky, "lstm_1(last) -> leaky_re_lu_1 -> dense_1(linear)", "leaky_re_lu_1"),
    "dilation_rate": (
        convolution, SAID["convolution"].layers.replace(", dilation_rate=1", ""), "conv1d_1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", UNTOLD)
def test_nothing_is_assumed_in_silence(option: str, tmp_path: Path) -> None:
    """What is neither in the arrays nor said is asked for, or told as a decision."""
    build, text, layer = UNTOLD[option]
    path = weights_of(build(), tmp_path)
    try:
        spec = nc.from_keras(path, layers=text)
    except UnsupportedError as error:
        told: list[str] = list(error.reasons)
    else:
        told = spec.provenance["decisions"]
    assert [t for t in told if t.startswith(f"{layer}: ") and option in t]


def test_options_of_layers_without_weights(tmp_path: Path) -> None:
    model = leaky()
    path = weights_of(model, tmp_path)
    text = "lstm_1(last) -> leaky_re_lu_1(alpha=0.1) -> dense_1(linear)"
    assert_parity(nc.from_keras(path, layers=text), runs_of(model, 6))


def test_models_inside_models_are_not_told_apart(tmp_path: Path) -> None:
    inner = tf_keras.Sequential(
        [L.InputLayer((None, 3)), L.LSTM(4, name="lstm_1"), L.Dense(3, name="dense_1")], "inner"
    )
    path = weights_of(sequential((None, 3), inner, L.Dense(2, name="dense_2")), tmp_path)
    with pytest.raises(UnsupportedError, match=r"inner: holds .*lstm_1") as caught:
        nc.from_keras(path, layers="inner -> dense_2(linear)")
    assert len(caught.value.reasons) == 1


# --- what is wrong -------------------------------------------------------------------------------


Wrong = tuple[str, type[NpylstmError], str]
STACK = "lstm_1 -> dropout_1 -> lstm_2(last) -> dense_1(softmax)"
WRONG: dict[str, Wrong] = {
    "empty": ("", FormatError, "layers: "),
    "arrow_at_the_end": (f"{STACK} -> ", FormatError, "layers: expected a name"),
    "no_arrow": ("lstm_1 lstm_2", FormatError, "'lstm_1 lstm_2'"),
    "open_bracket": ("lstm_1 -> lstm_2(last -> dense_1(softmax)", FormatError, r"lstm_2\(last"),
    "two_brackets": (STACK.replace("(last)", "(last)(tanh)"), FormatError, r"lstm_2\(last\)\(tanh"),
    "layer_left_out": (
        "lstm_1 -> dense_1(softmax)", UnsupportedError, "lstm_2.*is not in layers",
    ),
    "last_left_out": ("lstm_1 -> lstm_2(last)", UnsupportedError, "dense_1.*is not in layers"),
    "unknown_layer": (STACK.replace("dense_1", "dense_9"), UnsupportedError, "dense_9: is no layer"),
    "unknown_class": (f"{STACK} -> Spam", UnsupportedError, "Spam: is no layer of the file"),
    "wrong_case": (STACK.replace("lstm_1", "LSTM_1"), UnsupportedError, "LSTM_1: is no layer"),
    "class_with_weights": (f"{STACK} -> Dense(3)", UnsupportedError, "Dense: is no layer"),
    "class_with_gates": (f"{STACK} -> LSTM(last)", UnsupportedError, "LSTM: is no layer"),
    "unknown_activation": (STACK.replace("softmax", "spam"), UnsupportedError, "dense_1: .*'?spam"),
    "unknown_option": (
        STACK.replace("last", "last, spam=1"), UnsupportedError, "lstm_2: .*spam",
    ),
    "option_of_another_layer": (
        STACK.replace("softmax", "softmax, padding=same"), UnsupportedError, "dense_1: .*padding",
    ),
    "wrong_size": (STACK.replace("last", "last, units=9"), UnsupportedError, "lstm_2: .*shape"),
    "sequences_of_a_dense": (
        STACK.replace("softmax", "softmax, last"), UnsupportedError, "dense_1: .*last|return_seq",
    ),
    "twice": (STACK.replace("lstm_2(last)", "lstm_2(sequences) -> lstm_2(last)"), NpylstmError,
              "lstm_2"),
    "wrong_order": ("lstm_2 -> lstm_1(last) -> dense_1(softmax)", NpylstmError, "lstm_1|dense_1"),
    "last_before_an_lstm": (
        STACK.replace("lstm_1", "lstm_1(last)"), NpylstmError, "lstm_2",
    ),
    "two_activations": (STACK.replace("softmax", "softmax, tanh"), NpylstmError, "dense_1"),
    "said_in_two_ways": (
        STACK.replace("softmax", "softmax, activation=relu"), NpylstmError, "dense_1",
    ),
    "two_outputs": (STACK.replace("(last)", "(sequences, last)"), NpylstmError, "lstm_2"),
    "option_twice": (STACK.replace("softmax", "softmax, units=3, units=4"), NpylstmError, "dense_1"),
    "nothing_with_weights": ("Dropout -> Flatten", NpylstmError, "layers|lstm_1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_words(
    name: str,
    tmp_path: Path,
    built: Callable[[str], Built],
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, kind, match = WRONG[name]
    path = built("lstm_stack").path
    with pytest.raises(kind, match=match):
        nc.from_keras(path, layers=text)
    out = tmp_path / "m.npz"
    status, stdout, stderr = run_main(capsys, "convert", path, out, "--layers", text)
    assert (status, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert re.search(match, stderr)
    assert not out.exists()


def test_beside_an_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = lstm_stack()
    path = weights_of(model, tmp_path)
    (tmp_path / "m.json").write_text(model.to_json())
    for name in ("m.h5", "m.keras"):
        model.save(tmp_path / name)
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.txt").write_text("not of Keras")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(FormatError, match="layers: only for weights-only files"):
        nc.from_keras(path, architecture=tmp_path / "m.json", layers=STACK)
    for name in ("m.h5", "m.keras"):
        with pytest.raises(FormatError, match="layers: only for weights-only files"):
            nc.from_keras(tmp_path / name, layers=STACK)
    with pytest.raises(FormatError, match="neither HDF5 nor"):
        nc.from_keras(tmp_path / "m.txt", layers=STACK)
    with pytest.raises(FormatError, match="not one of Keras"):
        nc.from_keras(tmp_path / "foreign.h5", layers=STACK)
    with pytest.raises(NpylstmError, match="weights-only file"):
        nc.from_keras(model, layers=STACK)
    for name in ("m.h5", "m.keras", "m.weights.h5", "m.txt", "foreign.h5", "absent.h5"):
        given = ("convert", tmp_path / name, tmp_path / "m.npz", "--layers", STACK)
        status, stdout, stderr = run_main(capsys, *given)
        assert (status, stdout) == (2, "")
        assert len(stderr.splitlines()) == 1


# --- the command line ----------------------------------------------------------------------------


def command_of(text: str) -> str:
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("npylstm ")]
    return line


@pytest.mark.parametrize("name", SAID)
def test_info_and_the_command_to_complete(
    name: str,
    tmp_path: Path,
    built: Callable[[str], Built],
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = SAID[name]
    model, path, runs = built(name)
    status, stdout, stderr = run_main(capsys, "info", path)
    assert (status, stderr) == (0, "")
    for layer in model.layers:
        assert re.search(rf"^  {layer.name}: ", stdout, re.MULTILINE)
    program, verb, source, output, option, text = shlex.split(command_of(stdout))
    assert (program, verb, source, option) == ("npylstm", "convert", str(path), "--layers")
    assert output.endswith(".npz")
    # It names all layers in order; what it proposes in brackets are the options to fill in.
    assert said_names(text) == [layer.name for layer in model.layers]
    true = {step.split("(")[0]: step for step in said.layers.split(" -> ")}
    filled = [fill(step, true.get(step.split("(")[0], step)) for step in text.split(" -> ")]
    out = tmp_path / "m.npz"
    status, stdout, stderr = run_main(
        capsys, verb, source, out, option, " -> ".join(filled), "--record", 0
    )
    assert (status, stderr) == (0, "")
    assert_parity(npylstm.load(out).spec, runs)
    # Without --layers the way to that command is shown.
    status, stdout, stderr = run_main(capsys, "convert", path, out)
    assert (status, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert f"`npylstm info {path}` shows what to state" in stderr
    assert "--architecture" in stderr


def test_info_speaks_of_keras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = weights_of(lstm_stack(), tmp_path)
    _, stdout, _ = run_main(capsys, "info", path)
    assert "lstm_1: LSTM(3 -> 5)" in stdout
    assert "dense_1: Dense(4 -> 3)" in stdout
    assert "state_dict" not in stdout  # PyTorch's word


def test_what_stands_before_repeat_vector_gives_its_last_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights_of(autoencoder(), tmp_path)
    command = command_of(run_main(capsys, "info", path)[1])
    assert "lstm_1(last, tanh, recurrent_activation=sigmoid) -> repeat_vector_1" in command
    assert "lstm_2(sequences, tanh, recurrent_activation=sigmoid) -> time_dist" in command
    text = shlex.split(command)[-1].replace("n=1", "n=5")
    given = ("convert", path, tmp_path / "m.npz", "--layers", text, "--record", 0)
    assert run_main(capsys, *given)[0] == 0


def said_names(text: str) -> list[str]:
    return [step.split("(")[0] for step in text.split(" -> ")]


def options_of(step: str) -> list[str]:
    return [o.strip() for o in step.partition("(")[2].rstrip(")").split(",") if o.strip()]


def fill(step: str, true: str) -> str:
    """Put true values in the place of those that are proposed; what is not said stays proposed."""
    name, proposed, wanted = step.split("(")[0], options_of(step), options_of(true)
    keys = {o.split("=")[0] for o in wanted}
    ways = {"sequences", "last"}
    kept = [o for o in proposed if o.split("=")[0] not in keys]
    kept = [o for o in kept if "=" in o or ((o in ways) is not bool(ways & keys))]
    plain = [o for o in wanted if "=" not in o and o not in ways]
    if plain or "activation" in keys:
        kept = [o for o in kept if "=" in o or o in ways]
    return f"{name}({', '.join([*kept, *wanted])})" if [*kept, *wanted] else name


RECORDED = {
    "lstm_stack": STACK,
    "without_dropout": "lstm_1 -> lstm_2(last) -> dense_1(softmax)",
    "dropout_by_class": "lstm_1 -> Dropout -> lstm_2(last) -> dense_1(softmax)",
}


@pytest.mark.parametrize("name", RECORDED)
def test_convert_records_with_the_framework(
    name: str,
    tmp_path: Path,
    built: Callable[[str], Built],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = built("lstm_stack").path, tmp_path / "m.npz"
    given = ("convert", path, out, "--layers", RECORDED[name])
    status, stdout, stderr = run_main(capsys, *given)
    assert (status, stderr) == (0, "")
    assert "10 recorded cases" in stdout
    assert "the engine agrees with tf_keras for the chain that you stated" in stdout
    assert "stated, not proven:" in stdout
    assert "  dense_1 has activation softmax" in stdout
    assert "parity held" not in stdout
    assert "lstm_1/lstm_cell/recurrent_kernel:0" in stdout
    assert len(npylstm.load(out).spec.cases) == 10


def test_a_chain_in_another_order_than_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chain names layers; Keras, too, must then load them by name."""
    saved = sequential(
        (None, 3), L.LSTM(4, name="lstm"), L.Dense(4, name="a"), L.Dense(4, name="b")
    )
    path, out = weights_of(saved, tmp_path), tmp_path / "m.npz"
    text = "lstm(last, tanh, recurrent_activation=sigmoid) -> b(relu) -> a(linear)"
    given = ("convert", path, out, "--layers", text, "--record", 2)
    status, stdout, _ = run_main(capsys, *given)
    assert status == 0
    assert "the engine agrees with tf_keras" in stdout
    other = sequential(
        (None, 3), saved.layers[0], L.Dense(4, activation="relu", name="b"), L.Dense(4, name="a")
    )
    for name in "ab":
        other.get_layer(name).set_weights(saved.get_layer(name).get_weights())
    xs = make_inputs(other, 3, 6, 0)
    assert_parity(npylstm.load(out).spec, [(xs, run(other, xs))])


@pytest.mark.parametrize("name", [n for n in SAID if n not in ("lstm_stack", "embedding")])
def test_convert_records_models_of_all_kinds(
    name: str,
    tmp_path: Path,
    built: Callable[[str], Built],
    capsys: pytest.CaptureFixture[str],
) -> None:
    said, path, out = SAID[name], built(name).path, tmp_path / "m.npz"
    given = ("convert", path, out, "--layers", said.layers, "--record", 2)
    status, stdout, stderr = run_main(capsys, *given)
    assert (status, stderr) == (0, "")
    assert "the engine agrees with tf_keras for the chain that you stated" in stdout


def test_layers_of_a_full_file_in_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = weights_of(lstm_stack(), tmp_path)
    status, stdout, stderr = run_main(capsys, "info", path, "--layers", STACK)
    assert (status, stderr) == (0, "")
    assert "tensor of the source" in stdout
    status, stdout, stderr = run_main(capsys, "info", path, "--layers", "lstm_1")
    assert (status, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1


def test_what_info_asks_and_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between two products there is an activation; Flatten tells the number of steps."""
    model = sequential(
        (5, 3), L.LSTM(4, return_sequences=True, name="lstm"), L.Flatten(name="flatten"),
        L.Dense(6, activation="relu", name="dense"), L.Dense(2, name="dense_1"),
        L.Activation("softmax", name="activation"),
    )  # fmt: skip
    path = weights_of(model, tmp_path)
    _, stdout, _ = run_main(capsys, "info", path)
    for line in (
        "lstm: what does it give? sequences (every step) or last (the last step) [sequences]",
        "dense: what is its activation? linear, relu, tanh, sigmoid, softmax or another [relu]",
        "dense_1: what is its activation? linear, relu, tanh, sigmoid, softmax or another [linear]",
        "activation: what is its activation? linear, relu, tanh, sigmoid, softmax or another [softmax]",
    ):  # fmt: skip
        assert f"  {line}\n" in stdout
    text = shlex.split(command_of(stdout))[-1]
    spec = nc.from_keras(path, layers=text)
    xs = make_inputs(model, 3, 5, 0)
    assert_parity(spec, [(xs, run(model, xs))])
    assert spec.inputs[0].shape == ("batch", 5, 3)
    assert spec.provenance["proof"] == "stated"
    assert spec.provenance["stated"] == [
        "lstm gives every step", "lstm has recurrent_activation sigmoid",
        "lstm has activation tanh", "flatten is layer 2 of 5", "dense has activation relu",
        "dense_1 has activation linear", "activation has activation softmax",
        "activation is layer 5 of 5", "there are no other layers",
    ]  # fmt: skip
    short = text.replace(", tanh, recurrent_activation=sigmoid", "")
    assumed = nc.from_keras(path, layers=short).provenance
    assert assumed["proof"] == "assumed"
    assert (
        "assumed: lstm: activation tanh, Keras' default, because the chain does not state it"
        in (assumed["stated"])
    )
    with h5py.File(path, "r+") as file:  # a kernel that reads none of the others' outputs
        group = file["dense_1"]
        (label,) = (n for n in group.attrs["weight_names"] if "kernel" in n)
        del group[label]
        group[label] = np.zeros((7, 2), "f4")
    status, stdout, _ = run_main(capsys, "info", path)
    assert status == 0
    assert "npylstm convert" not in stdout
    assert stdout.splitlines()[-1].startswith("no chain of these layers in this order fits: ")


# --- files of every generation -------------------------------------------------------------------


OLD = sorted(DATA.glob("*_stacked_weights.h5"))


def test_every_generation_is_here() -> None:
    writers = [p.name.split("_")[0] for p in OLD]
    assert writers == ["keras1", "keras20", "keras22", "tf115", "tf213", "tf24"]


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.name)
def test_old_files_give_the_numbers_of_their_writers(
    path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(path, "r") as file:
        names = [n.decode() if isinstance(n, bytes) else n for n in file.attrs["layer_names"]]
        version = file.attrs.get("keras_version")
    status, stdout, _ = run_main(capsys, "info", path)
    assert status == 0
    proposed = shlex.split(command_of(stdout))[-1]
    lstms = [n for n in names if n.startswith("lstm")]
    dense = next(n for n in names if n.startswith("dense"))
    assert said_names(proposed) == [n for n in names if not n.startswith("input")]
    old = path.name.startswith(("keras1_", "keras20_", "keras22_", "tf115_"))
    told = "hard_sigmoid" if old else "sigmoid"
    unclear = version is None or "2.2.4-tf" in str(version)
    asked = unclear and not path.name.startswith("keras1_")  # whose layout tells
    assert "recurrent_activation" in proposed
    gates = f", recurrent_activation={told}" if asked else ""
    text = f"{lstms[0]}(sequences{gates}) -> {lstms[1]}(last{gates}) -> {dense}(softmax)"
    spec = nc.from_keras(path, layers=text)
    stem = path.name.removesuffix("_weights.h5")
    known = np.load(DATA / f"{stem}.expected.npz")
    y = npylstm.Model(spec, backend).predict(known["x"])
    np.testing.assert_allclose(y, known["y"], atol=1e-6, rtol=0)
