"""Weights-only files of Keras on the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from keras_chains import (
    SAID,
    STACK,
    Built,
    L,
    autoencoder,
    command_of,
    lstm_stack,
    run_main,
    said_names,
    sequential,
    weights_of,
)
from keras_graphs import assert_parity, make_inputs, run

import npylstm


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
