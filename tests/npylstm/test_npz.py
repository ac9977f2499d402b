"""The file: written whole, readable by NumPy, the same bytes for the same model."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm import FormatError, ModelSpec, NpylstmError, ParityError
from npylstm.activations import Activation
from npylstm.io import model_file
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case


def make() -> ModelSpec:
    spec = make_chain(
        LSTM(3, 4, Activation.of("elu", alpha=0.5), return_sequences=True),
        Dense(4, 2), provenance={"framework": "Keras", "decisions": ["größer"]},
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    state = {"layer_0": {"h": np.ones((2, 4), "float32"), "c": np.zeros((2, 4), "float32")}}
    y = npylstm.Model(spec, "numpy").predict(x, state=state)
    return spec.with_cases([Case({"x": x}, {"layer_1": y}, state)])


def test_round_trip(tmp_path: Path) -> None:
    spec = make()
    npylstm.save(spec, tmp_path / "m.npz")
    back = model_file.read(tmp_path / "m.npz")
    assert back.to_json() == spec.to_json()
    for layer in spec.layers:
        for key, array in layer.weights.items():
            np.testing.assert_array_equal(back[layer.name].weights[key], array)
    np.testing.assert_array_equal(back.cases[0].inputs["x"], spec.cases[0].inputs["x"])
    np.testing.assert_array_equal(back.cases[0].state["layer_0"]["h"], np.ones((2, 4)))
    assert npylstm.Model(back, "numpy").verify().passed


def test_numpy_opens_it_without_pickle(tmp_path: Path) -> None:
    npylstm.save(make(), tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        gates = [f"layer_0/{letter}_{gate}" for letter in "WUb" for gate in "ifco"]
        assert set(gates) < set(file.files)
        assert file["layer_0/W_f"].shape == (3, 4)
        assert file["layer_0/U_o"].shape == (4, 4)
        assert file["layer_0/b_c"].shape == (4,)
        assert file["layer_1/kernel"].shape == (4, 2)
        document = json.loads(file["npylstm/spec"].tobytes().decode("utf-8"))
        assert file["case/0/input/x"].shape == (2, 5, 3)
        assert file["case/0/output/layer_1"].shape == (2, 5, 2)
    assert document["format_version"] == 2
    assert document["layers"][0]["config"]["activation"] == {"name": "elu", "alpha": 0.5}
    assert {"edges", "inputs", "outputs", "provenance", "layers"} < set(document)


def test_same_model_same_bytes(tmp_path: Path) -> None:
    npylstm.save(make(), tmp_path / "a.npz")
    npylstm.save(make(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_float64_round_trip(tmp_path: Path) -> None:
    spec = make_chain(LSTM(3, 4), dtype="float64")
    npylstm.Model(spec, "numpy").save(tmp_path / "m.npz")
    assert model_file.read(tmp_path / "m.npz")["layer_0"].weights["U_i"].dtype == np.float64


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.npz"
    npylstm.save(make(), path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        npylstm.save(make(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


def test_is_model(tmp_path: Path, root: Path) -> None:
    npylstm.save(make(), tmp_path / "m.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    assert model_file.is_model(tmp_path / "m.npz")
    assert not model_file.is_model(tmp_path / "other.npz")
    assert not model_file.is_model(root / "models" / "sine_keras" / "sine.keras")
    assert not model_file.is_model(root / "LICENSE")


def test_a_case_keeps_its_purpose(tmp_path: Path) -> None:
    spec = make_chain(LSTM(3, 2))
    x, y = np.zeros((1, 4, 3), "float32"), np.zeros((1, 2), "float32")
    cases = [
        Case({"x": x}, {spec.outputs[0]: y}, purpose="padding"),
        Case({"x": x}, {spec.outputs[0]: y}),
    ]
    npylstm.save(spec.with_cases(cases), tmp_path / "m.npz")
    assert [case.purpose for case in npylstm.load(tmp_path / "m.npz").spec.cases] == ["padding", ""]
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert str(file["case/0/purpose"]) == "padding"


@pytest.mark.parametrize("value", [np.zeros(3), np.array("x" * 41), np.array(["a", "b"])])
def test_a_purpose_is_one_short_word(tmp_path: Path, value: np.ndarray) -> None:
    spec = make_chain(LSTM(3, 2))
    x, y = np.zeros((1, 4, 3), "float32"), np.zeros((1, 2), "float32")
    npylstm.save(
        spec.with_cases([Case({"x": x}, {spec.outputs[0]: y}, purpose="a")]), tmp_path / "m.npz"
    )
    with np.load(tmp_path / "m.npz") as file:
        arrays = {**file, "case/0/purpose": value}
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(FormatError, match="case/0/purpose"):
        npylstm.load(tmp_path / "n.npz")


def test_bytes_and_open_files_are_read_as_paths_are(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    npylstm.save(make(), path)
    data = path.read_bytes()
    for source in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8),
                   io.BytesIO(data), path, str(path)):  # fmt: skip
        assert npylstm.load(source, "numpy").spec == make()
    with open(path, "rb") as file:
        assert npylstm.load(file, "numpy").spec == make()
        file.seek(0)  # it was read to its end, and is still open
        assert model_file.read(file) == make()
    reader, writer = os.pipe()  # which cannot be sought in
    with os.fdopen(reader, "rb") as pipe:
        with os.fdopen(writer, "wb") as file:
            file.write(data[:100])
        with pytest.raises(FormatError, match=r"not an \.npz file"):
            model_file.read(pipe)
    with io.BufferedReader(_Unseekable(data)) as stream:
        assert model_file.read(stream) == make()


class _Unseekable(io.RawIOBase):
    """A stream as of a network: it gives some bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        return self._data.readinto(memoryview(buffer)[:999])


def test_damage_is_named_wherever_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    npylstm.save(make(), path)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(b"layer_0/W_i.npy") + 160] ^= 1
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for damaged in (
        data[: len(data) // 2],
        b"",
        bytes(flipped),
        (tmp_path / "other.npz").read_bytes(),
    ):
        path.write_bytes(damaged)
        with pytest.raises(FormatError) as expected:
            npylstm.load(path)
        reason = str(expected.value).removeprefix(str(path))
        for source, name in ((damaged, "bytes"), (io.BytesIO(damaged), "file")):
            with pytest.raises(FormatError) as caught:
                npylstm.load(source)
            assert str(caught.value) == f"{name}{reason}"
        with open(path, "rb") as file, pytest.raises(FormatError) as caught:
            npylstm.load(file)
        assert str(caught.value) == str(expected.value)


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    npylstm.save(make(), tmp_path / "m.npz")
    for source, message in (
        (3, "bytes: expected a path, bytes or an open binary file, got int"),
        (None, "bytes: expected a path, bytes or an open binary file, got NoneType"),
        (io.StringIO("text"), r"file: expected a file opened for reading bytes .*, got str"),
    ):
        with pytest.raises(FormatError, match=message):
            npylstm.load(source)  # type: ignore[arg-type]


def test_cases_may_be_replayed_at_load(tmp_path: Path) -> None:
    spec = make()
    held, failed, none = (tmp_path / f"{k}.npz" for k in range(3))
    npylstm.save(spec, held)
    assert npylstm.load(held, "numpy", verify=True).spec == spec
    case = spec.cases[0]
    wrong = Case(case.inputs, {"layer_1": case.outputs["layer_1"] + np.float32(0.01)}, case.state)
    npylstm.save(spec.with_cases([wrong]), failed)
    with pytest.raises(ParityError, match=r"FAILED.*'layer_1'"):
        npylstm.load(failed, "numpy", verify=True)
    assert not npylstm.load(failed, "numpy").verify().passed
    npylstm.save(spec.with_cases([]), none)
    with pytest.raises(NpylstmError, match="holds no recorded cases"):
        npylstm.load(none, "numpy", verify=True)
