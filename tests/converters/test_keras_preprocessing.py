"""Layers that turn words into ids are left out; their ids are the input, their words are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import npylstm
from npylstm import UnsupportedError
from npylstm.cli import main

FRAMEWORKS: dict[str, Any] = {"keras3": keras, "tf_keras": tf_keras}
TEXTS = ["the cat sat", "a dog ran far"]
WORDS = ["", "[UNK]", "the", "sat", "ran", "far", "dog", "cat", "a"]


def vectorise(k: Any, **options: Any) -> Any:
    layer = k.layers.TextVectorization(output_sequence_length=5, name="words", **options)
    layer.adapt(TEXTS)
    return layer


def behind(k: Any, ids: Any) -> Any:
    """An embedding with a mask, which Keras 3 writes as operations on the ids."""
    L = k.layers
    return L.Dense(2)(L.LSTM(3)(L.Embedding(12, 4, mask_zero=True)(ids)))


def text(k: Any) -> Any:
    x = k.Input((1,), dtype="string", name="text")
    return k.Model(x, behind(k, vectorise(k)(x)))


def sequential(k: Any) -> Any:
    L = k.layers
    layers = [vectorise(k), L.Embedding(12, 4, mask_zero=True), L.GRU(3), L.Dense(2)]
    return k.Sequential([k.Input((1,), dtype="string"), *layers])


def exported(k: Any) -> Any:
    """As in Keras' own tutorials: the vectorization before the trained model."""
    ids = k.Input((None,), dtype="int64")
    trained = k.Model(ids, behind(k, ids))
    layers = [k.Input((1,), dtype="string"), vectorise(k), trained, k.layers.Activation("sigmoid")]
    return k.Sequential(layers)


def strings(k: Any) -> Any:
    """Words of the config and of an adaption, the same layer for two inputs, and floats beside."""
    L = k.layers
    left, right = (k.Input((4,), dtype="string", name=name) for name in ("left", "right"))
    other = k.Input((3,), name="other")
    shared = L.StringLookup(vocabulary=["the", "cat", "sat"], num_oov_indices=2, name="shared")
    single = k.Input((4,), dtype="string", name="single")
    adapted = L.StringLookup(mask_token="", name="adapted")
    adapted.adapt([t.split() for t in TEXTS[:1]])
    embedding = L.Embedding(12, 4)
    y = L.Concatenate(axis=1)(
        [embedding(shared(left)), embedding(shared(right)), embedding(adapted(single))]
    )
    return k.Model([left, right, single, other], L.Dense(2)(L.Concatenate()([L.LSTM(3)(y), other])))


def integers(k: Any) -> Any:
    x = k.Input((4,), dtype="int64", name="codes")
    lookup = k.layers.IntegerLookup(name="lookup")
    lookup.adapt([3, 5, 7, 7])
    return k.Model({"codes": x}, behind(k, lookup(x)))


TWO = [["the cat ran"], ["dog"]]
MODELS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "text": (text, [TWO]), "sequential": (sequential, [TWO]), "exported": (exported, [TWO]),
    "strings": (strings, [[["the", "dog", "sat", "x"]], [["cat", "cat", "y", "the"]],
                          [["", "sat", "z", "the"]], [[0.5, -1.0, 2.0]]]),
    "integers": (integers, [[[7, 3, 4, 5]]]),
}  # fmt: skip
WANTED = {
    "text": [("words", WORDS)], "sequential": [("words", WORDS)], "exported": [("words", WORDS)],
    "strings": [("shared", ["[UNK]", "[UNK]", "the", "cat", "sat"])] * 2
    + [("adapted", ["", "[UNK]", "the", "sat", "cat"])],
    "integers": [("lookup", [-1, 7, 5, 3])],
}  # fmt: skip


@pytest.fixture(scope="module", params=[(f, m) for f in FRAMEWORKS for m in MODELS], ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    framework, name = request.param
    model = MODELS[name][0](FRAMEWORKS[framework])
    path = tmp_path_factory.mktemp(framework) / "m.keras"
    model.save(path)
    return name, model, path


def ids(model: Any, name: str) -> list[Any]:
    """What the layers in front make of the inputs."""
    layers = {
        "strings": ["shared", "shared", "adapted", None], "integers": ["lookup"],
    }.get(name, ["words"])  # fmt: skip
    values = [tf.constant(v) for v in MODELS[name][1]]
    return [
        np.asarray(v if own is None else model.get_layer(own)(v))
        for own, v in zip(layers, values, strict=True)
    ]


def test_numbers_of_ids(case: Any) -> None:
    name, model, path = case
    values = [tf.constant(v) for v in MODELS[name][1]]
    given = (
        {"codes": values[0]} if name == "integers" else values if name == "strings" else values[0]
    )
    for source in (path, model):
        spec = nc.convert(source)
        entries = spec.provenance["preprocessing"]
        assert [(e["layer"], e["vocabulary"]) for e in entries] == WANTED[name]
        assert [e["input"] for e in entries] == [t.name for t in spec.inputs if t.integer]
        given_ids = ids(model, name)
        y = npylstm.Model(spec).predict(given_ids if len(given_ids) > 1 else given_ids[0])
        np.testing.assert_allclose(y, np.asarray(model(given)), rtol=2e-5, atol=2e-6)


def test_the_framework_runs_behind_the_layer(case: Any) -> None:
    _, _, path = case
    assert nc.compare(nc.convert(path), path, cases=3).passed


def test_info_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text(keras).save(tmp_path / "m.keras")
    assert main(["info", str(tmp_path / "m.keras")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "text: takes the ids that TextVectorization 'words' computes, which is left out" in out
    assert "standardize: lower_and_strip_punctuation" in out
    assert "'sat', 'ran'" in out


def test_a_long_vocabulary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file says how many words there are, and is read again."""
    x = keras.Input((4,), dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=[f"word{n:08}" for n in range(90_000)])
    keras.Model(x, behind(keras, lookup(x))).save(tmp_path / "m.keras")
    spec = nc.convert(tmp_path / "m.keras")
    (entry,) = spec.provenance["preprocessing"]
    assert (entry["vocabulary"], entry["words"]) == (None, 90_001)
    npylstm.save(spec, tmp_path / "m.npz")
    assert main(["info", str(tmp_path / "m.npz")]) == 0
    assert "90,001 words is in the source only" in " ".join(capsys.readouterr().out.split())


def elsewhere(k: Any) -> Any:
    x = k.Input((4,), dtype="int64")
    return k.Model(x, behind(k, k.layers.IntegerLookup(vocabulary=[1, 2], name="words")(x + 1)))


def read_twice(k: Any) -> Any:
    x = k.Input((4,), dtype="int64")
    lookup = k.layers.IntegerLookup(vocabulary=[1, 2], name="words")
    return k.Model(x, k.layers.Concatenate()([behind(k, lookup(x)), behind(k, x)]))


def counted(k: Any) -> Any:
    x = k.Input((1,), dtype="string")
    layer = k.layers.TextVectorization(output_mode="count", name="words")
    layer.adapt(TEXTS)
    return k.Model(x, k.layers.Dense(2)(layer(x)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (elsewhere, "words: .*'IntegerLookup' .* only directly behind an input.* cut the model"),
        (read_twice, "words: .*only directly behind an input"),
        (counted, "words: TextVectorization with output_mode='count' .* cut the model behind it"),
    ],
)
def test_refused(model: Callable[[Any], Any], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason) as caught:
        nc.from_keras(model(keras))
    assert len([text for text in caught.value.reasons if "words" in text]) == 1


def test_hashes_have_no_words(tmp_path: Path) -> None:
    x = keras.Input((4,), dtype="string", name="text")
    layer = keras.layers.Hashing(12, name="hashes")
    model = keras.Model(x, behind(keras, layer(x)))
    model.save(tmp_path / "m.keras")
    spec = nc.convert(tmp_path / "m.keras")
    (entry,) = spec.provenance["preprocessing"]
    assert (entry["class"], entry["vocabulary"]) == ("Hashing", None)
    assert entry["options"]["num_bins"] == 12
    words = tf.constant([["a", "b", "c", "a"]])
    y = npylstm.Model(spec).predict(np.asarray(layer(words)))
    np.testing.assert_allclose(y, np.asarray(model(words)), rtol=2e-5, atol=2e-6)
