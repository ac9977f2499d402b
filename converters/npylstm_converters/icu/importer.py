"""From the ``weights.json`` of ICU's lstm_word_segmentation to a ModelSpec.

Ids of characters, an embedding, a bidirectional LSTM, a dense layer with softmax: for each
character the probabilities that it begins a word, is inside one, ends one, or is one alone.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, ModelSpec
from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.shapes import BATCH, STEPS
from npylstm.spec import TensorSpec
from npylstm_converters import layouts
from npylstm_converters.errors import Refusal, named
from npylstm_converters.files import sha256_of
from npylstm_converters.registry import Importer, Runner
from npylstm_converters.toolkit.draft import Draft
from npylstm_converters.toolkit.json_files import (
    is_json,
    read_numbers,
    read_object,
    read_size,
    top_keys,
)
from npylstm_converters.toolkit.ledger import became
from npylstm_converters.toolkit.torch_reference import (
    Step,
    TorchReference,
    linear,
    module,
    recurrent,
)

__all__ = ["IMPORTER", "from_icu"]

LABELS = ("B", "I", "E", "S")
_MATRICES = tuple(f"mat{k}" for k in range(1, 10))
_KEYS = frozenset({"model", "mat1", "mat9"})
_VERSION = 1
_KERAS = ("kernel", "recurrent_kernel", "bias")


def from_icu(source: str | os.PathLike[str]) -> ModelSpec:
    """Convert a model of ICU's lstm_word_segmentation; nothing but NumPy is needed.

    Parameters
    ----------
    source
        A ``weights.json``.

    Returns
    -------
    ModelSpec
        Its input are integer ids (batch, steps), those of ``provenance["dic"]``; what is not in
        there has the next id. Its output are probabilities (batch, steps, 4) in the order of
        ``provenance["labels"]``; a word starts at B and S.

    Raises
    ------
    UnsupportedError
        If something is not supported: generalised vectors, and keys that are not known.
    FormatError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    document, draft = read_object(source), Draft()
    provenance = {
        "framework": "lstm_word_segmentation", "source_format": "ICU weights.json",
        "source_sha256": sha256_of(source),
    }  # fmt: skip
    with named(source):
        _translate(draft, document)
        return draft.finish(draft.about["model"], provenance)


def _translate(draft: Draft, document: Mapping[str, Any]) -> None:
    name, letters = document.get("model"), document.get("dic")
    if not isinstance(name, str) or not re.fullmatch(r"[\w .-]{1,100}", name):
        raise FormatError(f"model: expected a name, got {name!r:.80}")
    odd = sorted({*document} - {"model", "dic", *_MATRICES})
    if odd:
        raise Refusal(f"key {odd[0]!r:.80} is not supported")
    if "genvec" in name or letters is None:
        raise Refusal(
            "generalised vectors (genvec) are not supported, only models with ids of characters in "
            "dic"
        )
    vocabulary = _vocabulary(letters)
    table, *sides, kernel, bias = _matrices(document, vocabulary)
    features, units = table.shape[1], len(sides[1])
    draft.start(TensorSpec("ids", (BATCH, STEPS), integer=True))
    draft.add(
        "embedding", Embedding(vocabulary, features), {"embeddings": table},
        sources={"mat1": (table.shape, ["embeddings"])},
    )  # fmt: skip
    forward = LSTM(features, units, return_sequences=True)
    both = Bidirectional(forward, replace(forward, go_backwards=True))
    weights: dict[str, Array] = {}
    sources = {}
    for side, first in (("forward", 0), ("backward", 3)):
        arrays = sides[first : first + 3]
        split = layouts.lstm_from_keras(*arrays)
        weights |= {f"{side}/{k}": w for k, w in split.items()}
        for k, (array, role) in enumerate(zip(arrays, _KERAS, strict=True)):
            made = [f"{side}/{w}" for w in became(role, [*split])]
            sources[f"mat{2 + first + k}"] = (array.shape, made)
    draft.add("bidirectional", both, weights, sources=sources)
    draft.add(
        "dense", Dense(2 * units, len(LABELS), Activation.of("softmax")),
        {"kernel": kernel, "bias": bias},
        sources={"mat8": (kernel.shape, ["kernel"]), "mat9": (bias.shape, ["bias"])},
    )  # fmt: skip
    draft.about |= {"model": name, "labels": list(LABELS), "dic": dict(letters)}


def _vocabulary(letters: Any) -> int:
    """Return the number of ids: those of ``dic``, and one for all else."""
    if not isinstance(letters, dict):
        raise FormatError(f"dic: expected an object, got {type(letters).__name__}")
    if sorted(map(repr, letters.values())) != sorted(map(repr, range(len(letters)))):
        raise FormatError(f"dic: expected the ids 0 to {len(letters) - 1}, each once")
    return len(letters) + 1


def _matrices(document: Mapping[str, Any], vocabulary: int) -> list[Array]:
    """Return the nine matrices, whose sizes must fit one another."""
    stated = [_entry(document, key) for key in _MATRICES]
    (_, features), (units, _) = stated[0][0], stated[2][0]
    side = [(features, 4 * units), (units, 4 * units), (4 * units,)]
    shapes = [(vocabulary, features), *side, *side, (2 * units, len(LABELS)), (len(LABELS),)]
    arrays = []
    for key, shape, (dims, data) in zip(_MATRICES, shapes, stated, strict=True):
        if tuple(dims) != shape:
            raise FormatError(f"{key}: expected dim {list(shape)}, got {list(dims)}")
        flat = read_numbers(f"{key}: data", data, (math.prod(shape),))
        arrays.append(flat.reshape(shape))
    return arrays


def _entry(document: Mapping[str, Any], key: str) -> tuple[Sequence[int], Any]:
    """Return the sizes and the numbers of a matrix."""
    entry = document.get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("dim"), list):
        raise FormatError(f"{key}: expected an object with dim and data")
    rank = 1 if key in ("mat4", "mat7", "mat9") else 2
    if len(entry["dim"]) != rank:
        raise FormatError(f"{key}: dim: expected {rank} sizes, got {entry['dim']!r:.60}")
    odd = sorted({*entry} - {"v", "dim", "data"})
    if odd:
        raise Refusal(f"{key}: key {odd[0]!r:.80} is not supported")
    if entry.get("v") != _VERSION:
        raise Refusal(f"{key}: v={entry.get('v')!r:.40} is not supported, only {_VERSION}")
    return [read_size(f"{key}: dim", size) for size in entry["dim"]], entry.get("data")


def _build(torch: Any, document: Mapping[str, Any]) -> list[Step]:
    """Build the network in PyTorch."""
    tensors = [
        torch.tensor(document[key]["data"], dtype=torch.float32).reshape(document[key]["dim"])
        for key in _MATRICES
    ]
    table, *sides, kernel, bias = tensors
    layers = [
        [sides[k].T, sides[k + 1].T, sides[k + 2], torch.zeros_like(sides[k + 2])] for k in (0, 3)
    ]
    return [
        module(lambda ids: table[ids.long()]),
        recurrent(torch, "LSTM", layers, directions=2),
        linear(torch, kernel.T, bias),
        module(torch.nn.Softmax(-1)),
    ]


class _IcuImporter(Importer):
    name = "icu"

    def accepts(self, source: Any, head: bytes) -> bool:
        return is_json(head) and top_keys(source) >= _KEYS

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_icu(source)

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> Runner:
        def build(torch: Any) -> list[Step]:
            return _build(torch, read_object(source))

        return TorchReference(spec, build, sets_state=False)


IMPORTER = _IcuImporter()
