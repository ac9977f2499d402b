"""Models with functions of NumPy in place of layers: loaded from files, and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from builders import agree
from keras_custom_layers import Array, Function, build, np_last, np_mean, np_twice, source_of
from keras_graphs import FRAMEWORKS

import npylstm
from npylstm import ModelSpec, NpylstmError, UnsupportedError
from npylstm.cli import main
from npylstm.graph.stream_plan import plan_stream


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model with two functions, as a file."""
    model = build("keras3", "two_lambdas")
    spec = nc.from_keras(model, custom={"twice": np_twice, "pick": np_last})
    npylstm.save(spec, tmp_path / "m.npz")
    return tmp_path / "m.npz"


def test_the_file_names_functions_and_holds_none(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        spec = json.loads(archive["npylstm/spec"].tobytes())
    external = [e for e in spec["layers"] if e["kind"] == "external"]
    assert [e["config"]["name"] for e in external] == ["twice", "pick"]
    assert "np_last" not in json.dumps(spec)


LOADS: dict[str, tuple[dict[str, Function], type[NpylstmError], tuple[str, ...], tuple[str, ...]]]
LOADS = {
    "none": ({}, UnsupportedError, ("twice", "pick"), ()),
    "one": ({"pick": np_last}, UnsupportedError, ("twice",), ("pick: ",)),
    "unknown": (
        {"twice": np_twice, "pick": np_last, "odd": np_last}, NpylstmError, ("'odd'",), (),
    ),
    "by_class": ({"Lambda": np_twice}, NpylstmError, ("'Lambda'", "pick, twice"), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
def test_loading_wants_each_function_once(name: str, saved: Path, backend: str) -> None:
    custom, kind, told, untold = LOADS[name]
    with pytest.raises(kind) as caught:
        npylstm.load(saved, backend, custom=custom)
    assert all(text in str(caught.value) for text in told)
    assert not any(text in str(caught.value) for text in untold)
    if kind is UnsupportedError:
        assert isinstance(caught.value, UnsupportedError)
        assert len(caught.value.reasons) == len(told)


def test_functions_for_a_model_without_such_layers(tmp_path: Path) -> None:
    k = FRAMEWORKS["keras3"]
    npylstm.save(
        nc.from_keras(k.Sequential([k.Input((None, 3)), k.layers.LSTM(2)])), tmp_path / "m"
    )
    with pytest.raises(NpylstmError, match="'odd'"):
        npylstm.load(tmp_path / "m", custom={"odd": np_last})


def test_another_function_may_be_given(saved: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    given = npylstm.load(saved, "numpy", {"twice": np_twice, "pick": np_last})
    other = npylstm.load(saved, "numpy", {"twice": lambda t: 2 * t, "pick": lambda t: t[:, 0]})
    assert not np.array_equal(given.predict(x), other.predict(x))
    agree(other.predict(x), given.predict(x[:, :1]), 3 + 4 + 1)


def test_what_a_function_raises_comes_through(saved: Path) -> None:
    def fails(x: Array) -> Array:
        raise ArithmeticError("of my own")

    model = npylstm.load(saved, "numpy", {"twice": fails, "pick": np_last})
    with pytest.raises(ArithmeticError, match="of my own"):
        model.predict(np.zeros((1, 2, 3)))


def test_whole_sequences_do_not_stream() -> None:
    spec: ModelSpec = nc.from_keras(build("keras3", "mean"), custom={"average": np_mean})
    with pytest.raises(UnsupportedError, match="average"):
        plan_stream(spec)


# --- the command line ----------------------------------------------------------------------------


def run_main(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_info_needs_no_functions(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_main(capsys, "info", saved)
    assert (status, err) == (0, "")
    assert "twice" in out
    assert "pick" in out
    assert "external" in out
    assert "streams: no" in out
    status, out, err = run_main(capsys, "info", saved, "--json")
    assert (status, err) == (0, "")
    assert [e["kind"] for e in json.loads(out)["layers"]] == ["external", "lstm", "external"]


def test_commands_that_compute_say_what_is_missing(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3)))
    given = ("--input", tmp_path / "x.npy")
    commands: list[tuple[Any, ...]] = [
        ("predict", saved, *given),
        ("predict", saved, *given, "-o", tmp_path / "y.npy"),
        ("trace", saved, *given, "-o", tmp_path / "gates.npz"),
        ("verify", saved),
        ("bench", saved, "--seconds", "0.01"),
    ]
    for command in commands:
        status, out, err = run_main(capsys, *command)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert "twice" in err
        assert "pick" in err
    assert not (tmp_path / "y.npy").exists()


def test_convert_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = source_of(build("tf_keras", "two_lambdas"), "keras", tmp_path)
    status, out, err = run_main(capsys, "convert", source, tmp_path / "m.npz")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "twice: layer class 'Lambda'" in err
    assert "pick: layer class 'Lambda'" in err
    assert not (tmp_path / "m.npz").exists()
