"""Where the bytes of weights lie in files of TensorFlow.js: shards, groups, and quantised weights."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_files import DATA, MANY, NEWEST, assert_same_model, content, converted, recorded
from tfjs_layout import TYPES, Layout, Weight, dequantise, quantise, weight, write_json


@pytest.mark.parametrize("size", [1, 5, 65, 1000, 1 << 22])
@pytest.mark.parametrize("name", MANY)
def test_shards_cut_weights_anywhere(name: str, size: int, tmp_path: Path) -> None:
    layout = recorded(name).in_shards(size)
    if size < 1000:
        assert len(layout.parts()[1]) > 5
        assert any(cut % 4 for cut in layout.cuts[0])
    assert_same_model(layout, name, tmp_path)


@pytest.mark.parametrize("name", MANY)
def test_groups_have_their_own_shards(name: str, tmp_path: Path) -> None:
    layout = recorded(name).in_groups().in_shards(101)
    assert len(layout.groups) > 2
    assert any(len(cuts) > 1 for cuts in layout.cuts)
    assert_same_model(layout, name, tmp_path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MANY)
def test_any_order(name: str, seed: int, tmp_path: Path) -> None:
    """The converter follows the alphabet, as HDF5 does, and JSON promises no order of keys."""
    rng = random.Random(seed)
    weights = list(recorded(name).weights)
    rng.shuffle(weights)

    def shuffled(value: Any) -> Any:
        if isinstance(value, list):
            return [shuffled(v) for v in value]
        if not isinstance(value, dict):
            return value
        return {k: shuffled(value[k]) for k in rng.sample(list(value), len(value))}

    path = recorded(name).with_weights(weights).in_shards(333).write(tmp_path)
    path.write_text(json.dumps(shuffled(json.loads(path.read_text()))))
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


PATHS: dict[str, Callable[[int, int, int], str]] = {
    "as downloads are named": lambda g, s, n: f"./model.weights-{g}{s}.bin",
    "without a suffix": lambda g, s, n: f"group{g + 1}-shard{s + 1}of{n}",
    "in a folder": lambda g, s, n: f"weights/part/{g}-{s}.bin",
    "with dots": lambda g, s, n: f"..weights{g}.{s}..bin",
    "with blanks": lambda g, s, n: f"my weights ({g}) %20 {s}.bin",
    "in other letters": lambda g, s, n: f"Gewichte-Größe-重み-{g}-{s}",
    "hidden": lambda g, s, n: f".w{g}{s}",
}


@pytest.mark.parametrize("name", PATHS)
def test_names_of_shards(name: str, tmp_path: Path) -> None:
    layout = replace(recorded("lstm_stack").in_groups().in_shards(99), name=PATHS[name])
    assert_same_model(layout, "lstm_stack", tmp_path)


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    layout = recorded("lstm_stack")
    total = sum(len(w.data) for w in layout.weights)
    assert_same_model(replace(layout, cuts=((0, 8, 8, 8, total),)), "lstm_stack", tmp_path)


def test_a_group_may_be_empty(tmp_path: Path) -> None:
    layout = recorded("lstm_stack")
    path = layout.write(tmp_path)
    document = json.loads(path.read_text())
    document["weightsManifest"].insert(0, {"paths": [], "weights": []})
    write_json(tmp_path, document)
    assert content(nc.from_tfjs(path)) == content(
        nc.from_tfjs(DATA / NEWEST / "lstm_stack/model.json")
    )


def flat(layout: Layout, folder: Path, key: str) -> Path:
    """A list of weights without groups, each with the file that it lies in."""
    path = layout.in_groups(lambda w: w.name).write(folder)
    document = json.loads(path.read_text())
    entries = [
        {**group["weights"][0], "paths": group["paths"]} for group in document[key]
    ]  # fmt: skip
    return write_json(folder, {**document, key: entries})


@pytest.mark.parametrize("name", MANY)
def test_a_manifest_without_groups(name: str, tmp_path: Path) -> None:
    path = flat(recorded(name), tmp_path, "weightsManifest")
    document = json.loads(path.read_text())
    assert not any("weights" in entry for entry in document["weightsManifest"])
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


@pytest.mark.parametrize("name", MANY)
def test_a_manifest_of_one_group(name: str, tmp_path: Path) -> None:
    path = recorded(name).in_shards(99).write(tmp_path)
    document = json.loads(path.read_text())
    (document["weightsManifest"],) = document["weightsManifest"]
    write_json(tmp_path, document)
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


# --- quantised weights ---------------------------------------------------------------------------


def test_the_reference_dequantises_as_documented() -> None:
    w = weight("a/kernel", [[0.0, -0.1], [1.2, 0.5]])
    eight = quantise(w, "uint8")
    assert eight.data == bytes(
        [20, 0, 255, 118]
    )  # the converter's own documentation says 20, 0, 255
    assert eight.entry["quantization"]["min"] == pytest.approx(-0.10196078817)
    assert eight.entry["quantization"]["scale"] == pytest.approx(0.00509803940852)
    assert dequantise(eight).array[0, 0] == 0
    assert np.abs(dequantise(quantise(w, "uint16")).array - w.array).max() < 1.2e-5


@pytest.mark.parametrize("original", [True, False], ids=["original_dtype", "plain"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("name", MANY)
def test_quantised(name: str, dtype: str, original: bool, tmp_path: Path) -> None:
    layout = recorded(name).mapped(lambda w: quantise(w, dtype, original_dtype=original))
    spec = converted(layout.in_shards(77), tmp_path / "quantised")
    target = converted(layout.mapped(dequantise), tmp_path / "plain")
    assert content(spec) == content(target)
    assert content(spec) != content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


def test_some_weights_quantised(tmp_path: Path) -> None:
    """One entry may be, its neighbour not; each tells by itself."""
    kinds = ["uint8", None, "float16", "uint16"]

    def change(w: Weight) -> Weight:
        kind = kinds[sum(map(ord, w.name)) % 4]
        return quantise(w, kind) if kind else w

    layout = recorded("nested").mapped(change)
    found = {w.entry.get("quantization", {}).get("dtype") for w in layout.weights}
    assert len(found) > 2
    plain = layout.mapped(lambda w: dequantise(w) if "quantization" in w.entry else w)
    spec = converted(layout.in_groups().in_shards(31), tmp_path / "some")
    assert content(spec) == content(converted(plain, tmp_path / "plain"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_dequantised_in_float64(dtype: str, tmp_path: Path) -> None:
    """In float32, some numbers would be another: ``code * scale`` is rounded before ``+ min``."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, np.iinfo(TYPES[dtype]).max, (3, 20), TYPES[dtype], endpoint=True)
    notes = {"dtype": dtype, "min": -0.7234567890123, "scale": 1.456789012345 / codes.max()}
    first, *others = recorded("lstm").weights
    w = Weight({**first.entry, "quantization": notes}, codes.tobytes())
    expected = dequantise(w).array
    short = codes.astype("f4") * np.float32(notes["scale"]) + np.float32(notes["min"])
    assert (short != expected).any()
    layout = recorded("lstm")
    spec = converted(layout.with_weights([w, *others]), tmp_path / "codes")
    target = converted(layout.with_weights([dequantise(w), *others]), tmp_path / "plain")
    assert content(spec) == content(target)


def test_edges_of_quantisation(tmp_path: Path) -> None:
    """A constant weight, a range without zero, whole numbers as notes, the smallest halves."""
    layout = recorded("lstm")
    kernel, recurrent, bias, dense, last = layout.weights
    constant = quantise(weight(bias.name, np.full(20, 0.375)), "uint8")
    assert constant.entry["quantization"] == {
        "dtype": "uint8", "min": 0.375, "scale": 1.0, "original_dtype": "float32",
    }  # fmt: skip
    positive = quantise(weight(recurrent.name, np.abs(recurrent.array) + 2), "uint16")
    assert positive.entry["quantization"]["min"] > 2
    halves = np.array([6e-8, -6e-8, 65504.0, 6.1e-5, 0.0, -0.0, *np.linspace(-1, 1, 54)])
    half = quantise(weight(kernel.name, halves.reshape(3, 20)), "float16")
    whole = Weight(
        {**dense.entry, "quantization": {"dtype": "uint8", "min": -1, "scale": 2}}, bytes(range(10))
    )
    weights = (half, positive, constant, whole, quantise(last, "float16"))
    spec = converted(layout.with_weights(weights), tmp_path / "codes")
    plain = converted(layout.with_weights(map(dequantise, weights)), tmp_path / "plain")
    assert content(spec) == content(plain)
    assert spec.layers[1].weights["kernel"].reshape(-1)[[0, 9]].tolist() == [-1.0, 17.0]
