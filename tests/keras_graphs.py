"""Keras graphs for tests: how they get weights, how they are saved, how parity is judged.

Weights differ in every gate, biases are never zero. Parity is what ``npylstm/parity.py`` says:
the difference from the framework must be of the size of rounding in this very model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import tf_keras
from backends import BACKENDS

from npylstm import Model, ModelSpec, UnsupportedError
from npylstm.errors import UnprovenError
from npylstm.spec import Case

FRAMEWORKS = {"keras3": keras, "tf_keras": tf_keras}
WAYS = ("keras", "h5", "live", "json")
IDS = 9  # an Embedding in these tests knows at least so many


def randomise(model: Any, seed: int) -> None:
    """Set all weights, so that gates move without saturating."""
    rng = np.random.default_rng(seed)
    weights = []
    for array in model.get_weights():
        spread = 0.8 / np.sqrt(array.shape[0]) if array.ndim == 2 else 0.5
        values = rng.uniform(-1, 1, array.shape) * spread
        weights.append((values + 0.05 * np.sign(values)).astype(array.dtype))
    model.set_weights(weights)


def make_inputs(model: Any, batch: int, steps: int | Sequence[int], seed: int) -> list[np.ndarray]:
    """Invent one array per input; ``steps`` fills free axes, for all inputs or for each."""
    rng = np.random.default_rng(seed)
    arrays = []
    for number, tensor in enumerate(model.inputs):
        free = steps if isinstance(steps, int) else steps[number]
        shape = (batch, *(free if d is None else int(d) for d in tensor.shape[1:]))
        if "int" in str(getattr(tensor.dtype, "name", tensor.dtype)):
            arrays.append(rng.integers(0, IDS, shape).astype("int32"))
        else:
            arrays.append(rng.normal(size=shape).astype("float32"))
    return arrays


def flat(value: Any) -> list[np.ndarray]:
    """All arrays in nested lists, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [array for entry in value for array in flat(entry)]
    return [np.array(value)]


def run(model: Any, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the framework gives, one array per output."""
    with warnings.catch_warnings():  # whether one input is given in a list is no matter
        warnings.filterwarnings("ignore", "The structure of `inputs` doesn't match")
        return flat(model(xs[0] if len(xs) == 1 else list(xs), training=False))


def convert(model: Any, way: str, folder: Path) -> ModelSpec:
    """Convert a model object itself, or as it comes from a file."""
    if way == "live":
        return nc.from_keras(model)
    if way == "json":
        # tf_keras writes its older form unless the name ends so.
        end = ".weights.h5" if type(model).__module__.startswith("keras.") else "_weights.h5"
        model.save_weights(folder / f"model{end}")
        (folder / "model.json").write_text(model.to_json())
        return nc.from_keras(folder / f"model{end}", architecture=folder / "model.json")
    model.save(folder / f"model.{way}")
    return nc.convert(folder / f"model.{way}")


def make_case(spec: ModelSpec, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> Case:
    """A recorded run: inputs and outputs in the model's order."""
    names = [t.name for t in spec.inputs]
    assert len(spec.outputs) == len(ys), f"{len(ys)} outputs, npylstm has {spec.outputs}"
    return Case(dict(zip(names, xs, strict=True)), dict(zip(spec.outputs, ys, strict=True)))


def check(model: Model) -> None:
    """Verify; a random model whose outputs prove nothing must give the framework's all the same."""
    try:
        model.verify().check()
    except UnprovenError:  # such as a dead relu at its end
        for case in model.spec.cases:
            for name, y in model.replay(case).items():
                np.testing.assert_allclose(y, case.outputs[name], rtol=1e-4, atol=1e-6)


def assert_parity(
    spec: ModelSpec, runs: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
) -> None:
    """Compare with recorded runs, in both back ends, inputs by name and in order."""
    for _, ys in runs:
        assert all(np.isfinite(y).all() for y in ys), "the framework's own outputs are not finite"
    cases = [make_case(spec, xs, ys) for xs, ys in runs]
    for backend in BACKENDS:
        model = Model(spec.with_cases(cases), backend)
        check(model)
        xs = list(runs[0][0])
        y = model.predict(xs[0] if len(xs) == 1 else xs)
        if len(spec.outputs) > 1:
            assert list(y) == list(spec.outputs)
        named = model.predict(cases[0].inputs)
        assert all(np.array_equal(a, b) for a, b in zip(flat(y), flat(named), strict=True))


def refused(source: Any) -> tuple[str, ...]:
    """The reasons for which a source is refused; anything else that happens is an error."""
    try:
        spec = nc.from_keras(source)
    except UnsupportedError as error:
        return error.reasons
    raise AssertionError(f"converted, expected a refusal: {spec.to_json()['layers']}")


def try_converting(source: Any) -> tuple[ModelSpec | None, tuple[str, ...]]:
    """The model, or why not."""
    try:
        return nc.convert(source) if isinstance(source, Path) else nc.from_keras(source), ()
    except UnsupportedError as error:
        return None, error.reasons


def assert_same(a: ModelSpec, b: ModelSpec) -> None:
    """Of whichever file it comes, a model is the same."""
    assert len(a.layers) == len(b.layers)
    for one, other in zip(a.layers, b.layers, strict=True):
        assert one.layer == other.layer
        assert set(one.weights) == set(other.weights)
        for key, array in one.weights.items():
            np.testing.assert_array_equal(array, other.weights[key])
    assert [(e.inputs, e.outputs) for e in a.edges] == [(e.inputs, e.outputs) for e in b.edges]
    assert (a.inputs, a.outputs) == (b.inputs, b.outputs)
