"""Mixed policies and int8 weights: converted in float32, with a sentence that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras

import npylstm
from npylstm import UnsupportedError
from npylstm.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.*quantize. method")
FRAMEWORKS: dict[str, Any] = {"keras3": keras, "tf_keras": tf_keras}
X = np.random.default_rng(1).standard_normal((3, 5, 2)).astype("float32")


def model(k: Any) -> Any:
    L = k.layers
    x = k.Input((5, 2))
    y = L.Bidirectional(L.LSTM(3, return_sequences=True), name="both")(x)
    y = L.TimeDistributed(L.Dense(4, activation="gelu"))(L.LayerNormalization()(y))
    made = k.Model(x, L.Dense(2, name="head")(L.GRU(4)(y)))
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(size=w.shape) * 0.5 for w in made.get_weights()])
    return made


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_mixed_policies(framework: str, name: str, policy: str, tmp_path: Path) -> None:
    """The numbers of the same weights in float32; recorded cases are those of float32, too."""
    k = FRAMEWORKS[framework]
    k.mixed_precision.set_global_policy(policy)
    try:
        model(k).save(tmp_path / name)
    finally:
        k.mixed_precision.set_global_policy("float32")
    spec = nc.convert(tmp_path / name)
    np.testing.assert_allclose(npylstm.Model(spec).predict(X), model(k)(X), rtol=2e-5, atol=2e-6)
    (note,) = [n for n in spec.provenance["decisions"] if "policy" in n and "written" not in n]
    assert note.startswith("computes in float32")
    assert policy in note
    report = nc.compare(spec, tmp_path / name, X)
    assert report.passed
    assert report.framework.endswith(", in float32")


def quantized(mode: str) -> Any:
    L = keras.layers
    ids = keras.Input((5,), dtype="int32")
    y = L.LSTM(6)(L.Embedding(9, 4, name="embedding")(ids))
    y = L.Dense(5, name="hidden", activation="tanh")(y)
    made = keras.Model(ids, L.Dense(2, name="head", use_bias=False)(y))
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(size=w.shape) * 0.5 for w in made.get_weights()])
    made.quantize(mode)
    return made


@pytest.mark.parametrize("name", ["m.keras", "m.h5", ""])
def test_int8_weights(name: str, tmp_path: Path) -> None:
    made = quantized("int8")
    if name:
        made.save(tmp_path / name)
    spec = nc.convert(tmp_path / name if name else made)
    for layer in made.layers:  # the weights as they are, the inputs not rounded to 8 bits
        if hasattr(layer, "inputs_quantizer"):
            layer.inputs_quantizer = None
    ids = np.random.default_rng(2).integers(0, 9, (4, 5))
    np.testing.assert_allclose(
        npylstm.Model(spec).predict(ids), made(ids), rtol=2e-5, atol=2e-6
    )  # rounding of float32
    (note,) = [n for n in spec.provenance["decisions"] if "int8" in n]
    assert "embedding, hidden, head are multiplied by their scales" in note
    ledger = {e["source"]: e["weights"] for e in spec.provenance["tensors"] if e["layer"] == "head"}
    assert len(ledger) == 2
    assert ["kernel"] in ledger.values()


def test_int8_files_are_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized("int8").save(tmp_path / "m.keras")
    assert (
        main(["convert", str(tmp_path / "m.keras"), str(tmp_path / "m.npz"), "--record", "2"]) == 0
    )
    assert "in float32" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_quantized_weights(mode: str, tmp_path: Path) -> None:
    L = keras.layers
    made = keras.Sequential([keras.Input((4, 2)), L.LSTM(4), L.Dense(2, name="head")])
    made.quantize(mode)
    made.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match=f"head: is quantized to '{mode}.*before quantize"):
        nc.convert(tmp_path / "m.keras")


def test_quantized_parts_of_another_layer(tmp_path: Path) -> None:
    x = keras.Input((5, 4))
    made = keras.Model(x, keras.layers.MultiHeadAttention(2, 2, name="heads")(x, x))
    made.quantize("int8")
    made.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match="heads: is quantized to int8, which is supported"):
        nc.convert(tmp_path / "m.keras")
