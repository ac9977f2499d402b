"""``npylstm predict`` with an audio file: render it by a session, block by block.

Only this module uses soundfile and soxr, which the extra ``audio`` installs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npylstm import console
from npylstm.arrays import Array
from npylstm.cli.outputs import check_written
from npylstm.cli.printing import print_json
from npylstm.errors import FormatError, NpylstmError, ShapeError
from npylstm.io import npz
from npylstm.ops.shapes import BATCH, format_shape
from npylstm.runtime.model import Model, load

__all__ = ["is_audio", "render"]

_READ = (".wav", ".flac", ".aif", ".aiff")
_BLOCK = 512  # frames


def is_audio(path: str) -> bool:
    """Return whether a path has the suffix of an audio file."""
    return Path(path).suffix.lower() in _READ


def render(options: argparse.Namespace) -> int:
    """Render an audio file and print how fast that was.

    Every channel is a stream of its own; all start in the model's initial state.
    """
    if options.output is None or Path(options.output).suffix.lower() != ".wav":
        raise NpylstmError(f"{options.input}: give -o OUT.wav, a file for the rendered audio")
    if options.batch_size is not None or options.threads != 1:
        raise NpylstmError(
            f"{options.input}: --batch-size and --threads do not go with audio: each channel is "
            "one stream"
        )
    check_written(options.output, options.model, options.input)
    soundfile = _imported("soundfile", options.input)
    model = load(options.model, options.backend)
    settings = _settings(model, options.control or [])
    with _opened(soundfile, options.input) as source:
        rates = _rates(model, source.samplerate, options)
        resampler = None if len({*rates}) == 1 else _imported("soxr", options.input)
        renderer = _Renderer(model, source.channels, settings, resampler, rates)
        block = options.block or _BLOCK
        start = time.perf_counter()
        with (
            npz.atomic_write(options.output) as stream,
            soundfile.SoundFile(
                stream, "w", rates[0], source.channels, "FLOAT", format="WAV"
            ) as target,
            console.progress("rendering", -(-source.frames // block)) as advance,
        ):
            for y in renderer.run(_blocks(soundfile, source, block, options.input, advance)):
                target.write(y)
        seconds = time.perf_counter() - start
        _report(options, model, source.frames, source.channels, rates, seconds)
    return 0


def _imported(package: str, path: str) -> Any:
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: soundfile without its library
        raise NpylstmError(
            f"{path}: needs the package {package} ({error}): pip install 'npylstm[audio]'"
        ) from None


@contextlib.contextmanager
def _opened(soundfile: Any, path: str) -> Iterator[Any]:
    """Open an audio file."""
    with open(path, "rb") as stream:
        try:
            source = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError) as error:
            raise FormatError(f"{path}: not an audio file, or damaged: {error}") from None
        with source:
            yield source


def _blocks(
    soundfile: Any, source: Any, block: int, path: str, advance: Any
) -> Iterator[tuple[Array, bool]]:
    """Yield the file's blocks (frames, channels) in float32, and whether each is the last."""
    left = source.frames
    while left > 0:
        try:
            x = source.read(min(block, left), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise FormatError(f"{path}: damaged: {error}") from None
        if not len(x):
            raise FormatError(f"{path}: damaged: it ends {left} frames early")
        left -= len(x)
        yield x, left == 0
        advance()


def _settings(model: Model, stated: Sequence[str]) -> list[float]:
    """Return the value of each control, in the order of the input's columns.

    Raises
    ------
    ShapeError
        If the model does not map audio to audio.
    NpylstmError
        If a control is missing, unknown, or out of its range.
    """
    controls = _controls(model)
    shapes = [t.shape for t in (*model.inputs, *model.outputs)]
    sequences = len(shapes) == 2 and all(len(s) == 3 and s[0] == BATCH for s in shapes)
    if not sequences or shapes[0][2] != 1 + len(controls) or shapes[1][2] != 1:
        listed = " -> ".join(format_shape(s) for s in shapes)
        raise ShapeError(
            f"{model.spec.name}: {listed} does not map audio to audio, expected (batch, steps, 1) "
            "-> (batch, steps, 1), with a further column for every control"
        )
    given = dict(_setting(text) for text in stated)
    known = ", ".join(f"{n} ({a:g} to {b:g})" for n, (a, b) in controls.items()) or "none"
    if len(given) < len(stated) or {*given} != {*controls}:
        raise NpylstmError(
            f"--control: {model.spec.name} has the controls {known}, set each once; got "
            f"{', '.join(stated) or 'none'}"
        )
    for name, (low, high) in controls.items():
        if not low <= given[name] <= high:
            raise NpylstmError(f"--control {name}: expected {low:g} to {high:g}, got {given[name]}")
    return [given[name] for name in controls]


def _controls(model: Model) -> dict[str, tuple[float, float]]:
    """Return the ranges of the model's controls, by name."""
    entries = model.spec.provenance.get("controls", [])
    try:
        return {str(e["name"]): (float(e["from"]), float(e["to"])) for e in entries}
    except (TypeError, KeyError, ValueError):
        raise FormatError(f"{model.spec.name}: controls: expected name, from and to") from None


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise NpylstmError(f"--control {text}: expected NAME=NUMBER") from None


def _rates(model: Model, rate: int, options: argparse.Namespace) -> tuple[int, float]:
    """Return the sample rates of the file and of the model.

    Raises
    ------
    NpylstmError
        If they differ and nobody asked for resampling.
    """
    own = model.spec.provenance.get("sample_rate")
    if own is not None and (type(own) not in (int, float) or not own > 0):
        raise FormatError(f"{options.model}: sample_rate: expected a number, got {own!r:.80}")
    if own is None or own == rate:
        if own is None and options.resample:
            raise NpylstmError(
                f"{options.model}: does not say its sample rate, so nothing can be resampled"
            )
        return rate, rate
    if options.resample is None:
        raise NpylstmError(
            f"{options.input}: has {rate} Hz, the model was captured at {own:g} Hz; give "
            "--resample soxr, or a file of that rate"
        )
    return rate, own


class _Renderer:
    """Renders blocks (frames, channels), at the model's sample rate if there is a resampler."""

    def __init__(
        self, model: Model, channels: int, settings: Sequence[float], resampler: Any,
        rates: tuple[int, float],
    ) -> None:  # fmt: skip
        self._session = model.session(channels)
        self._settings = np.array(settings, model.spec.dtype)
        self._resamplers: list[Any] = []
        if resampler is not None:
            self._resamplers = [
                resampler.ResampleStream(a, b, channels, dtype="float32")
                for a, b in (rates, rates[::-1])
            ]

    def run(self, blocks: Iterator[tuple[Array, bool]]) -> Iterator[Array]:
        """Yield as many frames as the blocks have, in float32."""
        if not self._resamplers:
            for x, _ in blocks:
                yield self._render(x)
            return
        there, back = self._resamplers
        due = 0
        for x, last in blocks:
            due += len(x)
            y = back.resample_chunk(self._render(there.resample_chunk(x, last)), last)
            if last:  # both conversions round the number of frames
                y = np.concatenate([y, np.zeros((max(due - len(y), 0), x.shape[1]), y.dtype)])[:due]
            due -= len(y)
            yield y

    def _render(self, x: Array) -> Array:
        if not len(x):
            return x
        columns = np.empty((x.shape[1], len(x), 1 + len(self._settings)), self._settings.dtype)
        columns[:, :, 0], columns[:, :, 1:] = x.T, self._settings
        made: Array = self._session.push(columns)
        y: Array = made[:, :, 0].T.astype(np.float32)
        return y


def _report(
    options: argparse.Namespace, model: Model, frames: int, channels: int,
    rates: tuple[int, float], seconds: float,
) -> None:  # fmt: skip
    result: Mapping[str, Any] = {
        "output": options.output, "frames": frames, "channels": channels,
        "sample_rate": rates[0], "rendered_at": rates[1], "seconds": seconds,
        "samples_per_second": frames * channels / seconds,
        "times_real_time": frames / rates[0] / seconds, "backend": model.backend,
    }  # fmt: skip
    if options.json:
        print_json(result)
        return
    at = f", rendered at {rates[1]:g} Hz" if rates[1] != rates[0] else ""
    print(
        f"{options.output}: {frames:,} frames of {channels} channel{'s' * (channels != 1)}, "
        f"{rates[0]} Hz{at}; {result['samples_per_second']:,.0f} samples per second, "
        f"{result['times_real_time']:.1f} times real time, {model.backend} back end"
    )
