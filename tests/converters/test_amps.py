"""Captures of amplifiers: every format against an oracle in float64, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from amp_files import CAPTURES, STEPS, Capture, aidax, guitarml, nam, rtneural

import npylstm
from npylstm import FormatError, UnsupportedError
from npylstm.cli import main

# Fewer than 100 operations for each of 23 steps, in cells that contract, each rounding by 1.1e-16.
IN_FLOAT64 = 1e-12


def converted(capture: Capture, tmp_path: Path, **changes: Any) -> npylstm.ModelSpec:
    return nc.from_amp(capture.write(tmp_path / "capture.json", **changes))


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_computes_what_its_network_does(name: str, tmp_path: Path) -> None:
    capture = CAPTURES[name]()
    spec = converted(capture, tmp_path)
    x = capture.x()
    expected = capture.compute(x.astype(np.float64))
    y = npylstm.Model(spec.astype("float64")).predict(x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=0, atol=IN_FLOAT64 * np.abs(expected).max())
    y = npylstm.Model(spec).predict(x)
    assert y.dtype == np.float32
    # The same count of roundings, by 6e-8.
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert spec.provenance["proof"] == "proven"
    names = [control["name"] for control in spec.provenance.get("controls", [])]
    assert names == capture.controls


@pytest.mark.parametrize("name", [name for name in CAPTURES if name != "rtneural"])
def test_a_stream_gives_the_same_in_blocks(name: str, tmp_path: Path) -> None:
    capture = CAPTURES[name]()
    model = npylstm.Model(converted(capture, tmp_path))
    x = capture.x()
    session = model.session(2)
    pushed = [session.push(x[:, k : k + 7]) for k in range(0, STEPS - 1, 7)]
    stepped = session.step(x[:, -1])[:, None] if STEPS % 7 == 1 else None
    y = np.concatenate([*pushed, *([] if stepped is None else [stepped])], 1)
    np.testing.assert_allclose(y, model.predict(x), rtol=0, atol=1e-6)
    session.reset()
    np.testing.assert_array_equal(session.push(x[:, :7]), pushed[0])


@pytest.mark.parametrize("name", CAPTURES)
def test_torch_runs_the_network_of_the_file(name: str, tmp_path: Path) -> None:
    capture = CAPTURES[name]()
    path = capture.write(tmp_path / "capture.json")
    importer = nc.find_importer(path)
    assert importer.name == "amp"
    spec = importer.convert(path)
    runner = importer.runner(path, spec)
    x = capture.x()
    (y,) = runner({"audio": x}, {}).values()
    expected = capture.compute(x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    report = npylstm.Model(nc.record(spec, runner, 4)).verify()
    assert report.passed
    assert report.proof == "proven"
    assert report.framework.startswith("torch ")


def test_a_nam_stream_starts_at_the_states_in_the_file(tmp_path: Path) -> None:
    capture = nam()
    model = npylstm.Model(converted(capture, tmp_path))
    session = model.session(2)
    weights = np.array(capture.document["weights"], "f4")
    units, first = 3, 12 * (1 + 3) + 12
    np.testing.assert_array_equal(
        session.state["lstm"]["h"], np.tile(weights[first : first + units], (2, 1))
    )
    np.testing.assert_array_equal(
        session.state["lstm"]["c"], np.tile(weights[first + units : first + 2 * units], (2, 1))
    )
    assert session.state["lstm_2"]["h"].all()
    kept = session.state
    session.push(capture.x())
    session.reset()
    for name, entries in session.state.items():
        for key, array in entries.items():
            np.testing.assert_array_equal(array, kept[name][key])


def test_the_rate_and_the_metadata_are_kept(tmp_path: Path) -> None:
    origin = converted(nam(), tmp_path).provenance
    assert origin["sample_rate"] == 48000
    assert origin["metadata"] == {"name": "made up", "loudness": -18.5, "gain": 0.5}
    document = nam().document
    del document["sample_rate"]
    path = tmp_path / "without.nam"
    path.write_text(json.dumps(document))
    assert "sample_rate" not in nc.from_amp(path).provenance
    assert converted(aidax(), tmp_path).provenance["sample_rate"] == 48000
    with pytest.raises(FormatError, match="sample rate: stated as 44100 and 48000"):
        converted(aidax(), tmp_path, samplerate=44100)
    assert "sample_rate" not in converted(guitarml(), tmp_path).provenance


def test_knobs_have_names_columns_and_ranges(tmp_path: Path) -> None:
    controls = converted(guitarml(inputs=3), tmp_path).provenance["controls"]
    assert controls == [
        {"name": "param1", "column": 1, "from": 0.0, "to": 1.0},
        {"name": "param2", "column": 2, "from": 0.0, "to": 1.0},
    ]


def test_the_run_that_aidax_recorded_is_a_case(tmp_path: Path) -> None:
    capture = aidax(in_skip=1, recorded=50)
    spec = converted(capture, tmp_path)
    (case,) = spec.cases
    assert case.purpose == "author"
    report = npylstm.Model(spec).verify()
    assert report.passed
    assert report.verdict.startswith("parity held: 1 recorded case against the capture's author")
    wrong = [y + 0.01 for y in capture.document["output_batch"]]
    report = npylstm.Model(converted(capture, tmp_path, output_batch=wrong)).verify()
    assert not report.passed


@pytest.mark.parametrize("options", [{"in_gain": 3.0}, {"out_gain": -3.0}, {"inputs": 2}])
def test_a_recorded_run_without_gain_and_knob_is_not_kept(options: Any, tmp_path: Path) -> None:
    spec = converted(aidax(recorded=9, **options), tmp_path)
    assert spec.cases == ()
    assert any("input_batch" in decision for decision in spec.provenance["decisions"])


def test_every_tensor_is_in_the_ledger(tmp_path: Path) -> None:
    for name, make in CAPTURES.items():
        spec = converted(make(), tmp_path)
        became = {(e["layer"], w) for e in spec.provenance["tensors"] for w in e["weights"]}
        weights = {(layer.name, w) for layer in spec.layers for w in layer.weights}
        assert became == weights, name


def test_the_command_line_converts_records_and_describes(tmp_path: Path, capsys: Any) -> None:
    path = aidax(recorded=60).write(tmp_path / "capture.aidax")
    assert main(["convert", str(path), str(tmp_path / "m.npz"), "--record", "2"]) == 0
    said = capsys.readouterr().out
    assert "3 recorded cases" in said
    assert "and 1 of the author's" in said
    assert main(["info", str(tmp_path / "m.npz")]) == 0
    said = capsys.readouterr().out
    assert "sample_rate: 48000" in said
    assert "streams: yes" in said


# --- what is refused -----------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def changed(capture: Capture, change: Change, tmp_path: Path) -> Path:
    document = copy.deepcopy(capture.document)
    change(document)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    return path


REFUSED: list[tuple[Capture, Change, str]] = [
    (nam(), lambda d: d.update(architecture="WaveNet"), "architecture 'WaveNet' is not supported, only LSTM"),
    (nam(), lambda d: d.update(architecture="SlimmableContainer"), "'SlimmableContainer' is not"),
    (nam(), lambda d: d.update(version="0.8.0"), "version '0.8.0' of the .nam format is not known, only 0.5.x"),
    (nam(), lambda d: d["config"].update(bidirectional=True), "argument bidirectional=True is not"),
    (nam(), lambda d: d["config"].update(input_size=2), "input_size 2 with in_channels 1"),
    (nam(), lambda d: d.update(gain=3), "argument gain=3 is not supported"),
    (guitarml(), lambda d: d["model_data"].update(model="RecNet"), "model 'RecNet' is not supported, only SimpleRNN"),
    (guitarml(), lambda d: d["model_data"].update(model="GatedConvNet"), "'GatedConvNet'"),
    (guitarml(), lambda d: d["model_data"].update(unit_type="QRNN"), "unit_type 'QRNN'"),
    (guitarml(), lambda d: d["model_data"].update(unit_type=["GRU"]), r"unit_type \['GRU'\] is not supported"),
    (guitarml(), lambda d: d["model_data"].update(model={}), "model {} is not supported"),
    (nam(), lambda d: d.update(architecture=[]), r"architecture \[\] is not supported"),
    (rtneural(), lambda d: d["layers"][0].update(type=[]), r"layers\[0\]: type \[\] is not supported"),
    (guitarml(inputs=2), lambda d: d["model_data"].update(skip=2), "skip 2 with 2 inputs and 1 outputs"),
    (guitarml(), lambda d: d["model_data"].update(dropout=0.5), "argument dropout=0.5"),
    (aidax(), lambda d: d.update(in_skip=2), "in_skip=2 is not supported, only 0 or 1"),
    (aidax(), lambda d: d.update(in_skip=True), "in_skip=True"),
    (aidax(), lambda d: d.update(tone=[1]), r"argument tone=\[1\] is not supported"),
    (rtneural(), lambda d: d.update(in_shape=[None, 1, 1, 1]), "in_shape of 4 axes"),
    (aidax(), lambda d: d["layers"][0].update(activation="relu"), "activation='relu' is not supported, only '' or 'tanh'"),
    (aidax(), lambda d: d["layers"][1].update(activation="swish"), "activation 'swish'"),
    (aidax(), lambda d: d["layers"][1].update(units=4), "argument units=4"),
]  # fmt: skip


@pytest.mark.parametrize(("capture", "change", "message"), REFUSED, ids=[m for *_, m in REFUSED])
def test_what_is_not_supported_is_refused(
    capture: Capture, change: Change, message: str, tmp_path: Path
) -> None:
    path = changed(capture, change, tmp_path)
    assert nc.find_importer(path).name == "amp"
    with pytest.raises(UnsupportedError, match=message) as caught:
        nc.from_amp(path)
    assert str(path) in str(caught.value)


def test_all_layers_that_are_not_supported_are_listed(tmp_path: Path) -> None:
    def change(d: dict[str, Any]) -> None:
        d["layers"][0]["type"] = "conv2d"
        d["layers"][3]["type"] = "gated_activation"
        d["layers"][8]["activation"] = "swish"

    with pytest.raises(UnsupportedError) as caught:
        nc.from_amp(changed(rtneural(), change, tmp_path))
    assert len(caught.value.reasons) == 3
    for k, word in enumerate(("[0]: type 'conv2d'", "[3]: type 'gated_activation'", "[8] (dense)")):
        assert word in caught.value.reasons[k]


def test_a_wavenet_of_smart_guitar_amp_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"activation": "gated", "residual_channels": 16, "dilations": [1]}))
    with pytest.raises(UnsupportedError, match="a WaveNet is not supported"):
        nc.convert(path)


def deep(levels: int) -> Any:
    value: Any = 1.0
    for _ in range(levels):
        value = [value]
    return value


def first_weight(value: Any) -> Change:
    return lambda d: d["layers"][0]["weights"][0][0].__setitem__(0, value)


DAMAGED: list[tuple[Capture, Change, str]] = [
    (nam(), lambda d: d["weights"].pop(), "weights: 2 layers of 3 units, 1 inputs and 1 outputs have 160 numbers, got 159"),
    (nam(), lambda d: d["weights"].append(1.0), "got 161"),
    (nam(), lambda d: d.update(weights={}), "160 numbers, got dict"),
    (nam(), lambda d: d["weights"].__setitem__(5, float("nan")), "weights: expected finite numbers"),
    (nam(), lambda d: d["weights"].__setitem__(5, 1e300), "weights: expected finite numbers"),
    (nam(), lambda d: d["weights"].__setitem__(5, 10**400), "weights: expected finite numbers"),
    (nam(), lambda d: d["weights"].__setitem__(5, "0.5"), "weights: expected a number, got '0.5'"),
    (nam(), lambda d: d["weights"].__setitem__(5, True), "weights: expected a number, got True"),
    (nam(), lambda d: d["weights"].__setitem__(5, deep(200)), "weights: expected a number, got list"),
    (nam(), lambda d: d["config"].update(hidden_size=10**18), "have .* numbers, got 160"),
    (nam(), lambda d: d["config"].update(num_layers=10**18), "have .* numbers, got 160"),
    (nam(), lambda d: d["config"].update(num_layers=0), "num_layers: expected an integer from 1 on, got 0"),
    (nam(), lambda d: d["config"].update(hidden_size=3.0), "hidden_size: expected an integer"),
    (nam(), lambda d: d.update(config=[]), "config: expected an object, got list"),
    (nam(), lambda d: d.pop("weights"), "weights: missing"),
    (nam(), lambda d: d.pop("version"), "version: missing"),
    (nam(), lambda d: d.update(sample_rate=-1), "sample rate: expected a positive number, got -1"),
    (nam(), lambda d: d.update(sample_rate=[48000]), "sample rate: expected a positive number"),
    (nam(), lambda d: d.update(metadata=[]), "metadata: expected an object"),
    (guitarml(), lambda d: d["model_data"].update(hidden_size=10**9), "rec.weight_ih_l0: expected numbers of shape"),
    (guitarml(), lambda d: d["model_data"].update(num_layers=10**12), "num_layers: 1000000000000 layers have more than"),
    (guitarml(), lambda d: d["model_data"].update(num_layers=2), "'rec.bias_hh_l1' is missing"),
    (guitarml(), lambda d: d["model_data"].update(bias_fl=False), "'lin.bias' is not expected"),
    (guitarml(), lambda d: d["state_dict"]["rec.bias_ih_l0"].pop(), r"rec.bias_ih_l0: expected numbers of shape \(16,\), found a list of 15"),
    (guitarml(), lambda d: d["state_dict"].update({"lin.weight": [deep(100)]}), "lin.weight: expected numbers of shape"),
    (guitarml(), lambda d: d.update(state_dict=[]), "expected objects model_data and state_dict"),
    (aidax(), first_weight("x"), r"layers\[0\] \(lstm\): weights\[0\]: expected a number, got 'x'"),
    (aidax(), first_weight(None), "expected a number, got None"),
    (aidax(), first_weight(float("inf")), "expected finite numbers"),
    (aidax(), lambda d: d["layers"][0].update(shape=[None, None, 10**15]), "expected numbers of shape"),
    (aidax(), lambda d: d["layers"][0].update(shape=[]), "shape: expected an integer from 1 on, got None"),
    (aidax(), lambda d: d["layers"][0]["weights"].pop(), "weights: expected 3 arrays, got 2"),
    (aidax(), lambda d: d["layers"].insert(0, 3), r"layers\[0\]: expected an object"),
    (aidax(), lambda d: d.update(layers=[]), "expected lists in_shape and layers"),
    (aidax(), lambda d: d.update(in_shape=[None, None, None]), "in_shape: expected an integer"),
    (aidax(), lambda d: d.update(in_gain="3"), "in_gain: expected dB between -90 and 90, got '3'"),
    (aidax(), lambda d: d.update(out_gain=-90), "out_gain: expected dB between"),
    (aidax(recorded=5), lambda d: d["output_batch"].pop(), "expected two lists of one length"),
    (aidax(recorded=5), lambda d: d.pop("input_batch"), "expected two lists of one length"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("capture", "change", "message"), DAMAGED, ids=[f"{k} {m}" for k, (*_, m) in enumerate(DAMAGED)]
)
def test_a_damaged_file_gives_one_clear_line(
    capture: Capture, change: Change, message: str, tmp_path: Path
) -> None:
    path = changed(capture, change, tmp_path)
    assert nc.find_importer(path).name == "amp"
    with pytest.raises(FormatError, match=message) as caught:
        nc.from_amp(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("make", [nam, guitarml, aidax])
def test_a_file_that_is_cut_off_is_damaged(make: Callable[[], Capture], tmp_path: Path) -> None:
    text = json.dumps(make().document)
    path = tmp_path / "cut.json"
    path.write_text(text[: len(text) - 40])
    assert nc.find_importer(path).name == "amp"
    with pytest.raises(FormatError, match="not JSON, or damaged"):
        nc.convert(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"architecture": "LSTM", "config": {}, "config": {"input_size": 1}}',
        '{"architecture": "LSTM", "config": ' + "[" * 100_000 + "}",
        '{"architecture": "LSTM", "config": {"input_size": ' + "9" * 100_000 + "}}",
    ],
    ids=["a key twice", "nested", "a long number"],
)
def test_hostile_json_is_damaged(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.nam"
    path.write_text(text)
    with pytest.raises(FormatError, match="not JSON, or damaged"):
        nc.from_amp(path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.nam"
    with path.open("wb") as stream:
        stream.write(b'{"architecture": "LSTM", "config": {}, "weights": [')
        stream.truncate(20 << 20)
    with pytest.raises(FormatError, match="expected up to 16777216 bytes of JSON, got 20971520"):
        nc.from_amp(path)


@pytest.mark.parametrize("depth", [100, 800, 900, 950, 980, 3000, 100_000])
def test_no_depth_of_nested_lists_is_a_traceback(depth: int, tmp_path: Path) -> None:
    text = json.dumps(nam().document)
    path = tmp_path / "deep.nam"
    for place in ('"odd": ', '"sample_rate": ', '"version": '):
        path.write_text(text[:-1] + ", " + place + "[" * depth + "]" * depth + "}")
        with pytest.raises((FormatError, UnsupportedError)):
            nc.from_amp(path)


def test_verify_against_the_file(tmp_path: Path, capsys: Any) -> None:
    path = guitarml("GRU", layers=2).write(tmp_path / "capture.json")
    assert main(["convert", str(path), str(tmp_path / "m.npz"), "--record", "0"]) == 0
    assert main(["verify", str(tmp_path / "m.npz"), "--against", str(path), "--cases", "3"]) == 0
    assert "3 recorded cases against torch" in capsys.readouterr().out
