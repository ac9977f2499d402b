"""What the formats of captures share: the input, knobs, gains, skip connections, sample rates."""

from __future__ import annotations

import math
from typing import Any

from npylstm import FormatError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.indexing import Slice
from npylstm.ops.pointwise import Rescaling
from npylstm.ops.shapes import BATCH, STEPS
from npylstm.ops.shaping import Concatenate
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.draft import Draft

__all__ = ["INPUT", "add_skip", "gain_of", "read_metadata", "read_rate", "scale_audio", "start"]

INPUT = "audio"
_MOST_INPUTS = 64
_FLOOR = -90.0  # dB; the runtime of AIDA-X takes gains from here down as silence
_LONGEST = 300  # characters of a text in the metadata


def start(draft: Draft, features: int, knobs: bool = True) -> None:
    """Begin with the input: audio in column 0, in the others the settings of knobs.

    Raises
    ------
    Refusal
        If there are more columns than any capture has.
    """
    if features > _MOST_INPUTS:
        raise Refusal(f"has {features} inputs, expected up to {_MOST_INPUTS}")
    draft.start(TensorSpec(INPUT, (BATCH, STEPS, features)))
    if knobs and features > 1:
        draft.about["controls"] = [
            {"name": f"param{k}", "column": k, "from": 0.0, "to": 1.0} for k in range(1, features)
        ]


def gain_of(name: str, value: Any) -> float:
    """Return the factor of a gain in dB.

    Raises
    ------
    FormatError
        If it is no number of a gain.
    """
    if type(value) not in (int, float) or not _FLOOR < value < -_FLOOR:
        raise FormatError(
            f"{name}: expected dB between {_FLOOR:g} and {-_FLOOR:g}, got {value!r:.80}"
        )
    return float(10 ** (value / 20))


def scale_audio(draft: Draft, factor: float) -> None:
    """Multiply the audio, and no knob, by a factor."""
    if factor == 1:
        return
    if draft.features == 1:
        draft.add("in_gain", Rescaling(factor))
        return
    both = draft.last
    draft.add("knobs", Slice(2, 1))
    knobs, draft.last = draft.last, both
    draft.add("dry", Slice(2, 0, 1))
    draft.add("in_gain", Rescaling(factor))
    draft.add("inputs", Concatenate(2), others=[knobs])


def add_skip(draft: Draft, before: str, columns: int) -> None:
    """Add the first columns of the input to the output."""
    after = draft.last
    if draft.builder.shapes[before][-1] != columns:
        draft.last = before
        draft.add("skipped", Slice(2, 0, columns))
        before, draft.last = draft.last, after
    draft.add("skip", Arithmetic("add"), others=[before])


def read_rate(*stated: Any) -> dict[str, float]:
    """Return ``sample_rate`` for the provenance, of numbers or texts; None is no statement.

    Raises
    ------
    FormatError
        If one is no rate, or they differ.
    """
    rates = {_rate(value) for value in stated if value is not None}
    if len(rates) > 1:
        raise FormatError(f"sample rate: stated as {' and '.join(f'{r:g}' for r in sorted(rates))}")
    return {} if not rates else {"sample_rate": rates.pop()}


def _rate(value: Any) -> float:
    try:
        if type(value) in (int, float, str) and 0 < (rate := float(value)) < math.inf:
            return int(rate) if rate.is_integer() else rate
    except (ValueError, OverflowError):
        pass
    raise FormatError(f"sample rate: expected a positive number, got {value!r:.80}")


def read_metadata(metadata: Any, **others: Any) -> dict[str, Any]:
    """Return ``metadata`` for the provenance: its texts and numbers, which change nothing.

    Parameters
    ----------
    metadata
        An object, or None.
    **others
        Metadata that is elsewhere in the file.

    Raises
    ------
    FormatError
        If it is no object.
    """
    if not isinstance(metadata, (dict, type(None))):
        raise FormatError(f"metadata: expected an object, got {type(metadata).__name__}")
    plain = {
        key: value[:_LONGEST] if isinstance(value, str) else value
        for key, value in {**(metadata or {}), **others}.items()
        if isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    }
    return {"metadata": plain} if plain else {}
