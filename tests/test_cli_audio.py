"""``npylstm predict`` with audio files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import soundfile
from amp_files import Capture, aidax, guitarml, nam, rtneural
from builders import make_chain

import npylstm
from npylstm.cli import main
from npylstm.ops.cells import LSTM

RATE = 48000
FRAMES = 1300


def audio(channels: int = 1, frames: int = FRAMES) -> Any:
    return np.random.default_rng(5).uniform(-1, 1, (frames, channels)).astype("f4")


class Studio:
    """A folder with a model and audio files, and the command line."""

    def __init__(self, folder: Path, capsys: Any) -> None:
        self.folder, self._capsys = folder, capsys

    def model(self, capture: Capture, **changes: Any) -> npylstm.Model:
        capture.write(self.folder / "capture.json", **changes)
        npylstm.save(nc.from_amp(self.folder / "capture.json"), self.folder / "m.npz")
        return npylstm.load(self.folder / "m.npz")

    def record(self, x: Any, rate: int = RATE, name: str = "x.wav", subtype: str = "FLOAT") -> None:
        soundfile.write(self.folder / name, x, rate, subtype)

    def run(self, *more: Any, name: str = "x.wav", output: str = "y.wav") -> tuple[int, str, str]:
        paths = [str(self.folder / part) for part in ("m.npz", name, output)]
        arguments = ["predict", paths[0], "--input", paths[1], "-o", paths[2], *map(str, more)]
        status = main(arguments)
        said = self._capsys.readouterr()
        return status, said.out, said.err

    def made(self, name: str = "y.wav") -> Any:
        assert soundfile.info(self.folder / name).subtype == "FLOAT"
        return soundfile.read(self.folder / name, dtype="float32", always_2d=True)[0]


@pytest.fixture
def studio(tmp_path: Path, capsys: Any) -> Studio:
    return Studio(tmp_path, capsys)


@pytest.mark.parametrize("block", [1, 64, 512, FRAMES, 10_000])
def test_a_file_is_rendered_block_by_block(block: int, studio: Studio) -> None:
    model, x = studio.model(nam()), audio()
    studio.record(x)
    status, out, err = studio.run("--block", block)
    assert (status, err) == (0, "")
    assert f"{FRAMES:,} frames of 1 channel, 48000 Hz;" in out
    assert "samples per second" in out
    y = studio.made()
    assert y.shape == x.shape
    np.testing.assert_allclose(y, model.predict(x.T[..., None])[0], rtol=0, atol=1e-6)
    assert [*studio.folder.glob(".*")] == []


def test_each_channel_is_a_stream_of_its_own(studio: Studio) -> None:
    model, x = studio.model(aidax("gru")), audio(3)
    studio.record(x)
    assert studio.run()[0] == 0
    y = model.predict(x.T[..., None])[..., 0].T
    np.testing.assert_allclose(studio.made(), y, rtol=0, atol=1e-6)


def test_other_containers_and_integers_are_read(studio: Studio) -> None:
    model, x = studio.model(aidax()), audio()
    for name in ("x.flac", "x.aiff", "X.WAV"):
        studio.record(x, name=name, subtype="PCM_16")
        assert studio.run(name=name)[0] == 0
        read = soundfile.read(studio.folder / name, dtype="float32")[0]
        y = model.predict(read[None, :, None])[0]
        np.testing.assert_allclose(studio.made(), y, rtol=0, atol=1e-6)


def test_knobs_are_set_by_name(studio: Studio) -> None:
    model, x = studio.model(guitarml(inputs=3)), audio(2)
    studio.record(x, 44100)
    settings = ["--control", "param2=0.75", "--control", "param1=0.25"]
    assert studio.run(*settings)[0] == 0
    columns = np.empty((2, FRAMES, 3), "f4")
    columns[..., 0], columns[..., 1:] = x.T, (0.25, 0.75)
    y = model.predict(columns)[..., 0].T
    np.testing.assert_allclose(studio.made(), y, rtol=0, atol=1e-6)
    assert soundfile.info(studio.folder / "y.wav").samplerate == 44100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "has the controls param1 (0 to 1), param2 (0 to 1), set each once; got none"),
        (["param1=0.5"], "set each once; got param1=0.5"),
        (["param1=0", "param2=0", "param1=1"], "set each once; got param1=0, param2=0, param1=1"),
        (["param1=0", "gain=0"], "set each once; got param1=0, gain=0"),
        (["param1=0", "param2=1.5"], "--control param2: expected 0 to 1, got 1.5"),
        (["param1=0", "param2=nan"], "--control param2: expected 0 to 1, got nan"),
        (["param1=0", "param2"], "--control param2: expected NAME=NUMBER"),
        (["param1=0", "param2=much"], "--control param2=much: expected NAME=NUMBER"),
    ],
)
def test_every_knob_needs_one_setting(settings: list[str], message: str, studio: Studio) -> None:
    studio.model(guitarml(inputs=3))
    studio.record(audio())
    status, _, err = studio.run(*(a for s in settings for a in ("--control", s)))
    assert status == 2
    assert message in err
    assert not (studio.folder / "y.wav").exists()


def test_a_model_without_knobs_takes_no_settings(studio: Studio) -> None:
    studio.model(nam())
    studio.record(audio())
    status, _, err = studio.run("--control", "gain=1")
    assert status == 2
    assert "has the controls none, set each once; got gain=1" in err


def test_another_sample_rate_is_refused(studio: Studio) -> None:
    studio.model(nam())
    studio.record(audio(), 44100)
    status, _, err = studio.run()
    assert status == 2
    assert "has 44100 Hz, the model was captured at 48000 Hz; give --resample soxr" in err
    studio.model(guitarml())
    assert studio.run()[0] == 0
    status, _, err = studio.run("--resample", "soxr")
    assert status == 2
    assert "does not say its sample rate" in err


@pytest.mark.parametrize("rate", [44100, 96000])
@pytest.mark.parametrize("frames", [1, 44100])
def test_a_file_is_resampled_there_and_back(rate: int, frames: int, studio: Studio) -> None:
    soxr = pytest.importorskip("soxr")
    model = studio.model(nam())
    t = np.arange(frames)[:, None] / rate
    x = (0.5 * np.sin(2 * np.pi * 220 * t) * np.ones(2)).astype("f4")
    studio.record(x, rate)
    status, out, _ = studio.run("--resample", "soxr")
    assert status == 0
    assert f"{rate} Hz, rendered at 48000 Hz" in out
    y = studio.made()
    assert y.shape == x.shape
    at_48k = model.predict(soxr.resample(x, rate, RATE).T[..., None])[..., 0].T
    expected = soxr.resample(at_48k, RATE, rate)[:frames]
    # In blocks soxr filters in other pieces: below 24 bits.
    np.testing.assert_allclose(y[: len(expected)], expected, rtol=0, atol=1e-4)


def test_the_same_rate_is_not_resampled(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    studio.model(nam())
    studio.record(audio())
    assert studio.run("--resample", "soxr")[0] == 0
    studio.record(audio(), 44100)
    status, _, err = studio.run("--resample", "soxr")
    assert status == 2
    assert "needs the package soxr" in err
    assert "pip install 'npylstm[audio]'" in err


def test_without_soundfile_the_extra_is_named(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.model(nam())
    studio.record(audio())
    monkeypatch.setitem(sys.modules, "soundfile", None)
    status, _, err = studio.run()
    assert status == 2
    assert "needs the package soundfile" in err
    assert "pip install 'npylstm[audio]'" in err


def test_the_result_as_json(studio: Studio) -> None:
    studio.model(nam())
    studio.record(audio(2))
    result = json.loads(studio.run("--json", "--backend", "numpy")[1])
    assert result["output"] == str(studio.folder / "y.wav")
    assert (result["frames"], result["channels"], result["sample_rate"]) == (FRAMES, 2, RATE)
    assert result["backend"] == "numpy"
    assert result["samples_per_second"] > 0


def test_an_empty_file_gives_an_empty_file(studio: Studio) -> None:
    studio.model(nam())
    studio.record(audio(frames=0))
    assert studio.run()[0] == 0
    assert studio.made().shape == (0, 1)


def test_a_model_that_maps_no_audio_is_refused(studio: Studio) -> None:
    studio.record(audio())
    for spec in (
        make_chain(LSTM(2, 1, return_sequences=True), shape=("batch", "steps", 2)),
        make_chain(LSTM(1, 3, return_sequences=True), shape=("batch", "steps", 1)),
        make_chain(LSTM(1, 1), shape=("batch", "steps", 1)),
        make_chain(LSTM(1, 1, return_sequences=True, time_major=True), shape=("steps", "batch", 1)),
    ):
        npylstm.save(spec, studio.folder / "m.npz")
        status, _, err = studio.run()
        assert status == 2
        assert "does not map audio to audio" in err


def test_a_model_that_cannot_stream_is_refused(studio: Studio) -> None:
    studio.model(rtneural())
    studio.record(audio())
    status, _, err = studio.run()
    assert status == 2
    assert "conv1d: slides a window" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch-size", "2"], "--batch-size and --threads do not go with audio"),
        (["--threads", "2"], "--batch-size and --threads do not go with audio"),
    ],
)
def test_options_of_arrays_do_not_go_with_audio(
    more: list[str], message: str, studio: Studio
) -> None:
    studio.model(nam())
    studio.record(audio())
    status, _, err = studio.run(*more)
    assert status == 2
    assert message in err


@pytest.mark.parametrize("more", [["--block", "3"], ["--control", "a=1"], ["--resample", "soxr"]])
def test_options_of_audio_do_not_go_with_arrays(more: list[str], studio: Studio) -> None:
    studio.model(nam())
    np.save(studio.folder / "x.npy", np.zeros((1, 5, 1), "f4"))
    status, _, err = studio.run(*more, name="x.npy", output="y.npy")
    assert status == 2
    assert f"{more[0]} goes with audio" in err


def test_the_output_is_a_wav_of_another_name(studio: Studio) -> None:
    studio.model(nam())
    studio.record(audio())
    before = (studio.folder / "x.wav").read_bytes()
    status, _, err = studio.run(output="y.npy")
    assert status == 2
    assert "give -o OUT.wav" in err
    status, _, err = studio.run(output="x.wav")
    assert status == 2
    assert "would be lost" in err
    assert (studio.folder / "x.wav").read_bytes() == before


def test_a_damaged_file_leaves_no_output(studio: Studio) -> None:
    studio.model(nam())
    (studio.folder / "x.wav").write_bytes(b"RIFF no audio at all")
    status, _, err = studio.run()
    assert status == 2
    assert "not an audio file, or damaged" in err
    (studio.folder / "x.wav").unlink()
    status, _, err = studio.run()
    assert status == 2
    assert "No such file" in err
    assert not [*studio.folder.glob("*y.wav*")]


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({"controls": [{"name": "a"}]}, "controls: expected name, from and to"),
        ({"controls": 3}, "controls: expected name, from and to"),
        ({"sample_rate": "48 kHz"}, "sample_rate: expected a number, got '48 kHz'"),
    ],
)
def test_a_damaged_provenance_is_named(
    provenance: dict[str, Any], message: str, studio: Studio
) -> None:
    studio.record(audio())
    chain = make_chain(LSTM(1, 1, return_sequences=True), shape=("batch", "steps", 1), provenance=provenance)  # fmt: skip
    npylstm.save(chain, studio.folder / "m.npz")
    status, _, err = studio.run()
    assert status == 2
    assert message in err
