"""What the words that join the layers of a weights-only file must say, and which words are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_chains import (
    SAID,
    STACK,
    Built,
    L,
    Said,
    convolution,
    embedding,
    lstm_stack,
    run_main,
    runs_of,
    sequential,
    simple,
    weights_of,
)
from keras_graphs import assert_parity

from npylstm import FormatError, NpylstmError, UnsupportedError


def edited(path: Path, **attributes: Any) -> Path:
    """The same file with other attributes; None takes one away."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            del file.attrs[name]
            if value is not None:
                file.attrs[name] = value
    return path


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
