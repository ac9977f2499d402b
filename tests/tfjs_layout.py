"""Layers models of TensorFlow.js taken apart and laid out anew, in every way that its writers know.

Shares no code with the importer: names, types and bytes as the manifest says, in plain NumPy.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Json = dict[str, Any]

SIZES = {"float32": 4, "float16": 2, "int32": 4, "uint16": 2, "uint8": 1, "bool": 1, "complex64": 8}
TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint16": "<u2", "uint8": "u1"}


@dataclass(frozen=True)
class Weight:
    """An entry of the manifest and its bytes."""

    entry: Json
    data: bytes

    @property
    def name(self) -> str:
        """As the manifest has it."""
        return str(self.entry["name"])

    @property
    def array(self) -> Array:
        """The numbers of a plain float32 weight."""
        return np.frombuffer(self.data, "<f4").reshape(self.entry["shape"])

    def renamed(self, name: str) -> Weight:
        """The same numbers under another name."""
        return replace(self, entry={**self.entry, "name": name})

    def described(self, **values: Any) -> Weight:
        """The same bytes with other words in the manifest."""
        return replace(self, entry={**self.entry, **values})


def weight(name: str, array: Array, **entry: Any) -> Weight:
    """A float32 weight."""
    array = np.asarray(array, "<f4")
    described = {"name": name, "shape": list(array.shape), "dtype": "float32", **entry}
    return Weight(described, array.tobytes())


@dataclass(frozen=True)
class Layout:
    """A model's files: everything in ``model.json`` but the manifest, and the weights in groups."""

    document: Json
    groups: tuple[tuple[Weight, ...], ...]
    cuts: tuple[tuple[int, ...], ...] = ()  # for each group, where its shards end; none: one shard
    name: Callable[[int, int, int], str] = field(
        default=lambda group, shard, count: f"group{group + 1}-shard{shard + 1}of{count}.bin"
    )

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Of all groups."""
        return tuple(w for group in self.groups for w in group)

    @property
    def topology(self) -> Json:
        """What has ``class_name`` and ``config``."""
        topology: Json = self.document["modelTopology"]
        return topology.get("model_config") or topology

    @property
    def layers(self) -> list[Json]:
        """The configurations of the layers."""
        config = self.topology["config"]
        layers: list[Json] = config if isinstance(config, list) else config["layers"]
        return layers

    def edited(self, change: Callable[[Json], object]) -> Layout:
        """With a changed ``model.json``."""
        document = copy.deepcopy(self.document)
        change(document)
        return replace(self, document=document)

    def with_layers(self, change: Callable[[list[Json]], object]) -> Layout:
        """With changed configurations of layers."""
        other = replace(self, document=copy.deepcopy(self.document))
        change(other.layers)
        return other

    def with_weights(self, weights: Iterable[Weight]) -> Layout:
        """With other weights, in one group."""
        return replace(self, groups=(tuple(weights),), cuts=())

    def mapped(self, change: Callable[[Weight], Weight]) -> Layout:
        """With every weight changed."""
        return replace(self, groups=tuple(tuple(map(change, g)) for g in self.groups))

    def in_groups(self, key: Callable[[Weight], str] | None = None) -> Layout:
        """A group for each layer, in alphabetical order, as the converter splits them."""
        key = key or (lambda w: w.name.rsplit("/", 1)[0])
        names = sorted({key(w) for w in self.weights})
        groups = tuple(tuple(w for w in self.weights if key(w) == name) for name in names)
        return replace(self, groups=groups, cuts=())

    def in_shards(self, size: int) -> Layout:
        """Shards of a number of bytes, wherever that cuts."""
        sizes = [sum(len(w.data) for w in group) for group in self.groups]
        return replace(self, cuts=tuple(tuple(range(size, n, size)) for n in sizes))

    def parts(self) -> tuple[list[Json], dict[str, bytes]]:
        """The manifest and the shards by path."""
        manifest, files = [], {}
        for k, group in enumerate(self.groups):
            data = b"".join(w.data for w in group)
            ends = [*(self.cuts[k] if self.cuts else ()), len(data)]
            shards = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
            paths = [self.name(k, i, len(shards)) for i in range(len(shards))]
            files |= dict(zip(paths, shards, strict=True))
            manifest.append({"paths": paths, "weights": [w.entry for w in group]})
        return manifest, files

    def write(self, folder: Path, **changes: Any) -> Path:
        """Write all files; ``changes`` replace keys of ``model.json``."""
        manifest, files = self.parts()
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return write_json(folder, {**self.document, "weightsManifest": manifest, **changes})


def write_json(folder: Path, document: Any) -> Path:
    """Write ``model.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def read(folder: Path) -> Layout:
    """Take the files of a model apart."""
    document: Json = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    groups = []
    for group in document.pop("weightsManifest"):
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        weights, offset = [], 0
        for entry in group["weights"]:
            size = SIZES[entry["dtype"]] * math.prod(entry["shape"])
            weights.append(Weight(entry, data[offset : offset + size]))
            offset += size
        assert offset == len(data)
        groups.append(tuple(weights))
    return Layout(document, tuple(groups))


# --- dialects ------------------------------------------------------------------------------------


def _camel_word(word: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda m: m[1].upper(), word)


def camel(value: Any, key: str = "") -> Any:
    """The dialect that TensorFlow.js has inside: keys and words in camelCase, names untouched."""
    if isinstance(value, dict):
        return {_camel_word(k): camel(v, k) for k, v in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], str) and len(value) > 1:  # ["layer", 0, 0, {}]
            return [value[0], *(camel(v, key) for v in value[1:])]
        return [camel(v, key) for v in value]
    if isinstance(value, str) and key not in ("name", "class_name"):
        return _camel_word(value)
    return value


def as_converted(layout: Layout, version: str = "2.2.4") -> Layout:
    """Framed as the Python converter frames a Keras model."""

    def change(document: Json) -> None:
        model = {k: document["modelTopology"][k] for k in ("class_name", "config")}
        document["modelTopology"] = {
            "keras_version": version, "backend": "tensorflow", "model_config": model,
        }  # fmt: skip
        document.update(
            generatedBy=f"keras v{version}", convertedBy="TensorFlow.js Converter v1.7.4"
        )

    return layout.edited(change)


def as_early(layout: Layout) -> Layout:
    """As the first converters wrote: a group for each layer, shards without a suffix, no format."""

    def change(document: Json) -> None:
        for key in ("format", "generatedBy", "convertedBy", "userDefinedMetadata"):
            document.pop(key, None)

    converted = as_converted(layout, "2.1.4").edited(change).in_groups()
    return replace(
        converted, name=lambda group, shard, count: f"group{group + 1}-shard{shard + 1}of{count}"
    )


# --- quantisation, by the formulas of the converter and of its readers ---------------------------


def quantise(w: Weight, dtype: str, *, original_dtype: bool = True) -> Weight:
    """As ``tensorflowjs_converter --quantize_...`` does."""
    values = w.array.astype(np.float64)
    notes: Json = {"dtype": dtype}
    if dtype == "float16":
        data = w.array.astype("<f2").tobytes()
    else:
        low, high = float(values.min()), float(values.max())
        if low == high:
            scale, codes = 1.0, np.zeros(values.shape)
        else:
            scale = (high - low) / (2 ** (8 * SIZES[dtype]) - 1)
            if low <= 0 <= high:  # zero must be a number
                low = -round(-low / scale) * scale
            codes = np.round((values.clip(low, None) - low) / scale)
        data = codes.clip(0, 2 ** (8 * SIZES[dtype]) - 1).astype(TYPES[dtype]).tobytes()
        notes |= {"min": low, "scale": scale}
    if original_dtype:
        notes["original_dtype"] = "float32"
    return Weight({**w.entry, "quantization": notes}, data)


def dequantise(w: Weight) -> Weight:
    """What a reader makes of it: ``code * scale + min`` in float64, rounded once."""
    notes = w.entry["quantization"]
    codes = np.frombuffer(w.data, TYPES[notes["dtype"]])
    if notes["dtype"] == "float16":
        values = codes.astype("<f4")
    else:
        values = (codes.astype(np.float64) * notes["scale"] + notes["min"]).astype("<f4")
    entry = {k: v for k, v in w.entry.items() if k != "quantization"}
    return Weight(entry, values.tobytes())


def names(weights: Sequence[Weight]) -> list[str]:
    """Of the manifest's entries."""
    return [w.name for w in weights]


def by_name(weights: Sequence[Weight]) -> Mapping[str, Weight]:
    """Find a weight."""
    return {w.name: w for w in weights}
