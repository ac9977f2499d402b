"""From a capture of a guitar amplifier to a ModelSpec."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, NamedTuple

from npylstm import FormatError, ModelSpec
from npylstm_converters.amps.guitarml import guitarml
from npylstm_converters.amps.nam import nam
from npylstm_converters.amps.reference import build
from npylstm_converters.amps.rtneural import rtneural
from npylstm_converters.errors import Refusal, named
from npylstm_converters.files import sha256_of
from npylstm_converters.registry import Importer, Runner
from npylstm_converters.toolkit.draft import Draft
from npylstm_converters.toolkit.json_files import is_json, read_object, top_keys
from npylstm_converters.toolkit.torch_reference import TorchReference
from npylstm_converters.toolkit.translation import Row, translate

__all__ = ["IMPORTER", "from_amp"]


class _Format(NamedTuple):
    """A format: keys that all its files have at the top, its program, and the translation."""

    keys: frozenset[str]
    framework: str
    row: Row


_FORMATS = (
    _Format(frozenset({"architecture", "config"}), "NAM", Row("NAM", nam)),
    _Format(
        frozenset({"model_data", "state_dict"}), "Automated-GuitarAmpModelling",
        Row("GuitarML JSON", guitarml),
    ),
    _Format(frozenset({"in_shape", "layers"}), "RTNeural", Row("RTNeural JSON", rtneural)),
)  # fmt: skip
_WAVENET = frozenset({"residual_channels", "dilations"})  # of SmartGuitarAmp


def from_amp(source: str | os.PathLike[str]) -> ModelSpec:
    """Convert a capture of a guitar amplifier; nothing but NumPy is needed.

    Parameters
    ----------
    source
        A file of NAM (``.nam``, with an LSTM), AIDA-X or RTNeural, or of GuitarML (NeuralPi,
        Proteus) and Automated-GuitarAmpModelling; detected by the keys in it.

    Returns
    -------
    ModelSpec
        Its input is (batch, steps, n): audio, one step for a sample, in column 0; in the others
        the settings of the knobs in ``provenance["controls"]``. ``provenance["sample_rate"]`` is
        there if the file has it. Outputs that the file itself holds are a recorded case.

    Raises
    ------
    UnsupportedError
        If something is not supported, such as a WaveNet; the message lists everything.
    FormatError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    document, draft = read_object(source), Draft()
    with named(source):
        found = _format_of(set(document))
        needed = [
            p.name for p in inspect.signature(found.row.function).parameters.values()
            if p.default is p.empty
        ]  # fmt: skip
        for key in needed[1:]:
            if key not in document:
                raise FormatError(f"{key}: missing")
        translate(found.row, draft, (), document)
        provenance = {
            "framework": found.framework, "source_format": found.row.name,
            "source_sha256": sha256_of(source),
        }  # fmt: skip
        return draft.finish(Path(source).stem, provenance)


def _format_of(keys: set[str]) -> _Format:
    for found in _FORMATS:
        if found.keys <= keys:
            return found
    if keys >= _WAVENET:
        raise Refusal("a WaveNet is not supported: npylstm runs recurrent networks")
    listed = " or ".join(" and ".join(sorted(f.keys)) for f in _FORMATS)
    raise FormatError(f"no capture: expected the keys {listed}")


class _AmpImporter(Importer):
    name = "amp"

    def accepts(self, source: Any, head: bytes) -> bool:
        keys = top_keys(source) if is_json(head) else set()
        return any(known <= keys for known in (*(f.keys for f in _FORMATS), _WAVENET))

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_amp(source)

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> Runner:
        return TorchReference(spec, lambda torch: build(torch, read_object(source)))


IMPORTER = _AmpImporter()
