"""Files of format version 1, kept as they were written: they load, verify and can be saved again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npylstm
from npylstm import Case, Model, ModelSpec

FOLDER = Path(__file__).resolve().parent.parent / "data" / "format1"
FILES = sorted(FOLDER.glob("*.npz"))

# As they were in format 1, whatever the table of kinds holds today.
KINDS = {
    "lstm", "gru", "simple_rnn", "bidirectional", "dense", "embedding", "masking", "conv1d",
    "batch_normalization", "layer_normalization", "unit_normalization", "prelu", "constant",
    "activation", "identity", "rescaling", "elementwise", "arithmetic", "reduce", "matmul", "dot",
    "attention", "multi_head_attention", "masked_mean", "masked_merge", "masked_softmax", "pool1d",
    "time_distributed", "external", "flatten", "reshape", "permute", "repeat_vector", "select",
    "slice", "size_of", "transpose", "flip", "view", "expand", "concatenate", "stack", "full",
    "repeat", "pad",
}  # fmt: skip
# Every word that a key may have, where it may have few.
WORDS = {
    ("bidirectional", "merge_mode"): {"concat", "sum", "mul", "ave", "none"},
    ("elementwise", "function"): {
        "abs", "cos", "log", "log1p", "expm1", "negative", "reciprocal", "rsqrt", "sign", "sin",
        "sqrt", "square",
    },
    ("arithmetic", "operation"): {
        "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "average",
    },
    ("reduce", "operation"): {"mean", "sum", "max", "min", "norm"},
    ("attention", "score"): {"dot", "additive", "concat"},
    ("multi_head_attention", "blocked"): {"lowered", "added", "equal", "zero"},
    ("masked_merge", "operation"): {"multiply", "maximum", "minimum"},
    ("pool1d", "operation"): {"max", "mean"},
}  # fmt: skip
# Activations, and their parameters.
ACTIVATIONS: dict[str, set[str]] = {
    "linear": set(), "tanh": set(), "sigmoid": set(), "hard_sigmoid_fifth": set(),
    "hard_sigmoid_sixth": set(), "relu": {"negative_slope", "max_value", "threshold"},
    "elu": {"alpha"}, "selu": set(), "softplus": {"beta", "threshold"}, "softsign": set(),
    "exponential": set(), "silu": set(), "gelu": set(), "gelu_tanh": set(), "mish": set(),
    "softmax": {"axis"}, "log_softmax": {"axis"}, "hard_silu": set(), "hard_tanh": set(),
    "celu": {"alpha"}, "log_sigmoid": set(), "tanh_shrink": set(), "soft_shrink": {"threshold"},
    "hard_shrink": {"threshold"}, "squareplus": {"b"}, "sparse_plus": set(),
    "sparse_sigmoid": set(), "thresholded_relu": {"theta"},
}  # fmt: skip


def double(x: Any) -> Any:
    return 2 * x


def weigh(x: Any, y: Any, weights: Any) -> Any:
    kernel, bias = weights
    return np.tanh(x @ kernel + bias) * y.mean(axis=1, keepdims=True)


def count_steps(x: Any) -> Any:
    return np.float64(x.shape[1])


CUSTOM: dict[str, Callable[..., Any]] = {
    "double": double,
    "weigh": weigh,
    "count_steps": count_steps,
}


def document_of(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        document: dict[str, Any] = json.loads(file["npylstm/spec"].tobytes().decode("utf-8"))
    return document


def entries_of(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every layer in a file: kind and config, those inside others included."""
    if isinstance(value, dict):
        if isinstance(value.get("config"), dict):
            yield value["kind"], value["config"]
        for inner in value.values():
            yield from entries_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from entries_of(inner)


def all_entries() -> list[tuple[str, dict[str, Any]]]:
    return [entry for path in FILES for entry in entries_of(document_of(path)["layers"])]


def load(path: Path, backend: str) -> Model:
    names = {
        config["name"]
        for kind, config in entries_of(document_of(path)["layers"])
        if kind == "external"
    }
    return npylstm.load(path, backend=backend, custom={name: CUSTOM[name] for name in names})


def bound(spec: ModelSpec, case: Case, expected: Any) -> float:
    """How far a run may be from a case that was computed in float64 and rounded once.

    A value of a layer is a sum of as many terms as a matrix of it has rows, in a recurrent layer of
    two matrices (a gate's slope is a quarter: all of them count as one), and rounded once for each;
    four more roundings are its functions'. A recurrence does so at every step. Errors reach the next
    layer by slopes of about one, as the models here have them, so they add up along the calls.
    Numbers are counted as large as the largest at hand, or one.
    """
    steps = max(max(x.shape[:2]) for x in case.inputs.values())
    rows = {
        layer.name: max((w.shape[-2] for w in layer.weights.values() if w.ndim > 1), default=0)
        for layer in spec.layers
    }
    recurrent = {layer.name for layer in spec.layers if any("U_" in key for key in layer.weights)}
    terms = sum(
        (2 * rows[edge.layer] + 4) * steps if edge.layer in recurrent else rows[edge.layer] + 4
        for edge in spec.edges
    )
    numbers = [case.inputs[t.name] for t in spec.inputs if not t.integer]
    largest = max(float(np.abs(a).max(initial=1.0)) for a in (*numbers, expected))
    return float(terms * largest * np.finfo(spec.dtype).eps)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_format_1(path: Path, backend: str, tmp_path: Path) -> None:
    assert document_of(path)["format_version"] == 1
    model = load(path, backend)
    spec = model.spec

    assert spec.cases
    replayed = [model.replay(case) for case in spec.cases]
    for case, outputs in zip(spec.cases, replayed, strict=True):
        assert outputs.keys() == case.outputs.keys()
        for name, expected in case.outputs.items():
            assert outputs[name].dtype == expected.dtype == spec.dtype
            np.testing.assert_allclose(
                outputs[name], expected, rtol=0, atol=bound(spec, case, expected), err_msg=name
            )
    assert model.verify().passed

    npylstm.save(spec, tmp_path / "again.npz")
    again = load(tmp_path / "again.npz", backend)
    assert again.spec == spec
    for case, outputs in zip(again.spec.cases, replayed, strict=True):
        for name, y in again.replay(case).items():
            np.testing.assert_array_equal(y, outputs[name])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_weights_and_cases_are_those_of_the_file(path: Path) -> None:
    spec = load(path, "numpy").spec
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    names = [layer["name"] for layer in document_of(path)["layers"]]
    for name in names:
        own = {k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")}
        if not own:
            continue  # without weights: later formats may have another layer in its place
        assert spec[name].weights.keys() == own.keys()
        for key, array in own.items():
            assert spec[name].weights[key].dtype == array.dtype
            assert spec[name].weights[key].tobytes() == array.tobytes()
    found = {"npylstm/spec"}
    found |= {f"{layer.name}/{key}" for layer in spec.layers for key in layer.weights}
    for number, case in enumerate(spec.cases):
        parts = {f"input/{k}": a for k, a in case.inputs.items()}
        parts |= {f"output/{k}": a for k, a in case.outputs.items()}
        parts |= {f"state/{k}/{n}": a for k, v in case.state.items() for n, a in v.items()}
        if case.lengths is not None:
            parts["lengths"] = case.lengths
        if case.purpose:
            parts["purpose"] = np.array(case.purpose)
        for key, array in parts.items():
            stored = arrays[f"case/{number}/{key}"]
            assert (stored.dtype, stored.shape) == (array.dtype, array.shape)
            assert stored.tobytes() == array.tobytes()
            found.add(f"case/{number}/{key}")
    assert arrays.keys() <= found


def test_the_files_hold_all_that_format_1_had() -> None:
    """Every kind with its keys, and every key that has a default with another value, too."""
    frozen = json.loads((FOLDER / "kinds.json").read_text(encoding="utf-8"))
    assert frozen.keys() == KINDS
    keys: dict[str, set[str]] = {}
    values: dict[tuple[str, str], list[Any]] = {}
    for kind, config in all_entries():
        keys.setdefault(kind, set()).update(config)
        for key, value in config.items():
            values.setdefault((kind, key), []).append(value)
    assert keys == {
        kind: {*entry["required"], *entry["defaults"]} for kind, entry in frozen.items()
    }
    never_changed = [
        (kind, key)
        for kind, entry in frozen.items()
        for key, default in entry["defaults"].items()
        if all(value == default for value in values[kind, key])
    ]
    assert not never_changed
    never_default = [
        (kind, key)
        for kind, entry in frozen.items()
        for key, default in entry["defaults"].items()
        if default not in values[kind, key]
    ]
    assert not never_default
    for place, words in WORDS.items():
        assert set(values[place]) == words, place


def test_the_files_hold_every_activation() -> None:
    found: dict[str, set[str]] = {}
    for _, config in all_entries():
        for key, value in config.items():
            if key.endswith("activation"):
                name = value if isinstance(value, str) else value["name"]
                parameters = set() if isinstance(value, str) else {*value} - {"name"}
                found.setdefault(name, set()).update(parameters)
    assert found == ACTIVATIONS


def test_the_files_hold_every_part_of_a_case() -> None:
    cases = [case for path in FILES for case in load(path, "numpy").spec.cases]
    assert any(case.state for case in cases)
    assert any(case.lengths is not None for case in cases)
    assert any(case.purpose for case in cases)
    documents = [document_of(path) for path in FILES]
    assert {document["dtype"] for document in documents} == {"float32", "float64"}
    assert any(t.get("whole") for document in documents for t in document["inputs"])
    assert any("#2" in t for document in documents for e in document["edges"] for t in e["outputs"])
