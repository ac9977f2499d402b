"""Models with dictionaries of inputs and outputs: their keys are the names here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from npylstm_converters.keras.runner import KerasRunner

import npylstm

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Keras: other names, no mask
FRAMEWORKS: dict[str, Any] = {"keras3": keras, "tf_keras": tf_keras}
RNG = np.random.default_rng(1)
ZED, ABE = RNG.normal(size=(3, 5, 2)).astype("f4"), RNG.normal(size=(3, 4)).astype("f4")


def body(k: Any) -> tuple[Any, Any, Any]:
    L = k.layers
    zed, abe = k.Input((5, 2), name="zed"), k.Input((4,), name="abe")
    return zed, abe, L.Concatenate(name="join")([L.LSTM(3, name="lstm")(zed), abe])


def named_otherwise(k: Any) -> Any:
    """Keys that are no names of layers, or of others, or in another order."""
    L = k.layers
    zed, abe, y = body(k)
    outputs = {
        "scale": L.Dense(1, name="b", activation="softplus")(y),
        "lstm": L.Dense(2, name="a")(y),
        "b": L.Dense(3, name="c")(y),
        "join": y,
    }
    return k.Model({"two": zed, "one/1": abe}, outputs)


def nested(k: Any) -> Any:
    """A model inside, called with a dictionary; its outputs have keys, too."""
    L = k.layers
    zed, abe, y = body(k)
    inner = k.Model({"zed": zed, "abe": abe}, {"q": L.Dense(2, name="d1")(y), "b": L.Dense(3)(y)})
    one, two = k.Input((5, 2), name="first"), k.Input((4,), name="second")
    made = inner({"abe": two, "zed": one})
    return k.Model({"zed": one, "abe": two}, {"y": L.Concatenate()([made["q"], made["b"]])})


def by_names_of_layers(k: Any) -> Any:
    """The inner model has a list of inputs, and is called by their names."""
    zed, abe, y = body(k)
    inner = k.Model([zed, abe], k.layers.Dense(2)(y))
    one, two = k.Input((5, 2), name="first"), k.Input((4,), name="second")
    return k.Model({"zed": one, "abe": two}, inner({"abe": two, "zed": one}))


MODELS: dict[str, Callable[[Any], Any]] = {
    "named otherwise": named_otherwise, "nested": nested, "by names of layers": by_names_of_layers,
}  # fmt: skip


def randomised(model: Any) -> Any:
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) * 0.5 for w in model.get_weights()])
    return model


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_numbers_by_name(framework: str, model: str, tmp_path: Path) -> None:
    made = randomised(MODELS[model](FRAMEWORKS[framework]))
    made.save(tmp_path / "m.keras")
    spec = nc.convert(tmp_path / "m.keras")
    keys = {"named otherwise": ("two", "one/1")}.get(model, ("zed", "abe"))
    want = made(dict(zip(keys, (ZED, ABE), strict=True)))
    assert {t.name for t in spec.inputs} == {key.replace("/", "_") for key in keys}
    got = npylstm.Model(spec).predict({keys[0]: ZED, keys[1].replace("/", "_"): ABE})
    if not isinstance(want, dict):
        want, got = {"y": want}, {"y": got}
    if not isinstance(got, dict):
        got = dict(zip(spec.outputs, [got], strict=True))
    assert set(got) == set(want)
    for name, y in want.items():
        np.testing.assert_allclose(got[name], np.asarray(y), rtol=2e-5, atol=2e-6)
    assert nc.compare(spec, tmp_path / "m.keras").passed


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_of_each(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((5, 2), name="x")
    made = randomised(k.Model({"signal": x}, {"signal": k.layers.GRU(2, name="gru")(x)}))
    made.save(tmp_path / "m.keras")
    spec = nc.convert(tmp_path / "m.keras")
    assert [t.name for t in spec.inputs] == ["signal"]
    assert spec.outputs == ("signal_2",)  # an input has the name already
    got = npylstm.Model(spec).predict(ZED)
    np.testing.assert_allclose(got, made({"signal": ZED})["signal"], rtol=2e-5, atol=2e-6)
    assert nc.compare(spec, tmp_path / "m.keras").passed


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_mask_of_one_input(framework: str, tmp_path: Path) -> None:
    """An inner model gets the mask of its embedded input, and none of the other."""
    k = FRAMEWORKS[framework]
    L = k.layers
    steps, static = k.Input((None, 3), name="steps"), k.Input((2,), name="static")
    inner = k.Model({"steps": steps, "static": static}, L.Concatenate()([L.LSTM(3)(steps), static]))
    ids, extra = k.Input((None,), dtype="int32", name="ids"), k.Input((2,), name="extra")
    embedded = L.Embedding(7, 3, mask_zero=True)(ids)
    made = randomised(
        k.Model({"ids": ids, "extra": extra}, inner({"steps": embedded, "static": extra}))
    )
    made.save(tmp_path / "m.keras")
    x = {"ids": np.array([[3, 2, 0, 0], [1, 5, 6, 0]]), "extra": ABE[:2, :2]}
    got = npylstm.Model(nc.convert(tmp_path / "m.keras")).predict(x)
    np.testing.assert_allclose(got, np.asarray(made(x)), rtol=2e-5, atol=2e-6)


def test_the_runner_knows_renamed_layers(tmp_path: Path) -> None:
    """The key ``lstm`` of an output is the name of a layer, which is renamed."""
    made = randomised(named_otherwise(keras))
    spec = nc.from_keras(made)
    assert {"lstm_", "b_"} <= {layer.name for layer in spec.layers}
    runner = KerasRunner(made, spec)
    assert runner.sets_lengths
    inputs = {"two": ZED, "one_1": ABE}
    state = {"lstm_": {"h": np.ones((3, 3), "f4"), "c": np.zeros((3, 3), "f4")}}
    got = npylstm.Model(spec).predict(inputs, state=state)
    for name, y in runner(inputs, state).items():
        np.testing.assert_allclose(got[name], y, rtol=2e-5, atol=2e-6)
