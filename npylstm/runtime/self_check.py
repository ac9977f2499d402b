"""Check every kernel of a library against NumPy in float64, as ``npylstm doctor`` shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.parts import LayerSpec
from npylstm.kernels.library import ADVANCE, EXECUTE, GENERATE, Kernel, KernelLibrary
from npylstm.kernels.table import EXAMPLES, FETCH, PRODUCTS, STORE, STORED, row_of
from npylstm.ops import OPERATIONS
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, STEPS, Shape
from npylstm.runtime.generating import forecast
from npylstm.runtime.kernel_engine import KernelEngine
from npylstm.runtime.numpy_engine import NumpyEngine
from npylstm.runtime.pool import Pool
from npylstm.runtime.predictor import Predictor
from npylstm.spec import Edge, ModelSpec, TensorSpec

__all__ = ["KernelCheck", "check_kernels"]

_BATCH, _STEPS, _FEATURES = 3, 7, 5
# Roundings in the longest chain of sums here: the terms of a step, times the steps. Weights and
# inputs are at most 1 / 4, so that no sum is much larger than 1.
_ROUNDINGS = 32 * _STEPS


class KernelCheck(NamedTuple):
    """The largest error of a kernel.

    Attributes
    ----------
    kernel, dtype
        What was checked.
    error, tolerance
        The largest difference from NumPy in float64, and the largest that rounding explains.
    """

    kernel: str
    dtype: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains the error."""
        return self.error <= self.tolerance  # false for nan


def check_kernels(library: KernelLibrary) -> Iterator[KernelCheck]:
    """Compute an example with every kernel.

    Parameters
    ----------
    library
        The kernels.

    Yields
    ------
    KernelCheck
        For each kernel and dtype.
    """
    for dtype in ("float32", "float64"):
        tolerance = _ROUNDINGS * float(np.finfo(dtype).eps)
        errors: dict[Kernel, float] = {}
        for kernels, result, reference in _results(library, dtype):
            error = float(np.max(np.abs(result - reference)))
            for kernel in (*kernels, EXECUTE):
                errors[kernel] = float(np.maximum(errors.get(kernel, 0.0), error))  # keeps nan
        for kernel, error in errors.items():
            yield KernelCheck(kernel.name, dtype, error, tolerance)


def _results(library: KernelLibrary, dtype: str) -> Iterator[tuple[Iterable[Kernel], Array, Array]]:
    """Yield kernels that work together, their result, and NumPy's."""
    for kind, arguments, inputs in EXAMPLES:
        operation = OPERATIONS[kind](**arguments)
        row = row_of(operation, dtype)
        assert row is not None
        spec = _alone(dtype, operation, inputs)
        x = _input(operation, dtype)
        native, exact = _both(spec, library)
        yield row.kernels(dtype), _flat(native.predict(x)), _flat(exact.predict(x))
    for weights in STORED if dtype == "float32" else ():
        # NumPy rounds the same rows to the same integers.
        spec = _stored(_alone(dtype, _lstm()), weights)
        native, other = (
            Predictor(spec, KernelEngine(spec, library)),
            Predictor(spec, NumpyEngine(spec)),
        )
        x = _input(_lstm(), dtype)
        yield filter(None, PRODUCTS[weights]), _rows(native, x), _rows(other, x)
    x = _input(_lstm(), dtype)
    native, exact = _both(_with_states(dtype), library)
    given = {"x": x, **{name: np.full((_BATCH, 20), 0.25, dtype) for name in ("h", "c")}}
    yield (FETCH.kernel, STORE.kernel), _joined(native, given), _joined(exact, given)
    native, exact = _both(_alone(dtype, _lstm(units=_FEATURES)), library)
    yield (GENERATE,), _forecast(native, x), _forecast(exact, x)
    yield (ADVANCE,), _pool(native, x), _pool(exact, x)


def _both(spec: ModelSpec, library: KernelLibrary) -> tuple[Predictor, Predictor]:
    """Return a model that computes with the library, and with NumPy in float64."""
    exact = spec.astype("float64")
    return Predictor(spec, KernelEngine(spec, library)), Predictor(exact, NumpyEngine(exact))


def _stored(spec: ModelSpec, storage: str) -> ModelSpec:
    layers = tuple(layer.in_storage(storage) for layer in spec.layers)
    return dataclasses.replace(spec, layers=layers)


def _rows(model: Predictor, x: Array) -> Array:
    """Predict all rows together, and the first one alone."""
    return np.concatenate([_flat(model.predict(x)), _flat(model.predict(x[:1]))])


def _lstm(units: int = 20, **options: bool) -> Operation:
    return OPERATIONS["lstm"](_FEATURES, units, **options)  # type: ignore[call-arg]


def _layer(operation: Operation, dtype: str) -> LayerSpec:
    """Give an operation weights: the same on every machine, different in every place."""
    weights = {}
    for number, (name, shape) in enumerate(operation.weight_shapes().items()):
        values = np.sin(np.arange(1.0, np.prod(shape) + 1) * (number + 2))
        values = np.abs(values) if operation.weight_role(name) == "variance" else values
        weights[name] = (values / 4).reshape(shape).astype(dtype)
    return LayerSpec("layer", operation, weights)


def _shape(operation: Operation) -> Shape:
    return operation.expected_input or (BATCH, STEPS, _FEATURES)


def _input(operation: Operation, dtype: str) -> Array:
    sizes = {BATCH: _BATCH, STEPS: _STEPS}
    shape = [sizes.get(d, _FEATURES) if isinstance(d, str) else d for d in _shape(operation)]
    numbers = np.arange(np.prod(shape)).reshape(shape)
    ids = operation.vocabulary_size
    x: Array = np.cos(numbers) / 4 if ids is None else numbers % ids
    return x.astype(dtype)


def _alone(dtype: str, operation: Operation, inputs: int = 1) -> ModelSpec:
    """Return a model of one layer, whose inputs are the same tensor."""
    x, layer = TensorSpec("x", _shape(operation)), _layer(operation, dtype)
    outputs = tuple(f"y{name}" for name in operation.output_names())
    edge = Edge(layer.name, ("x",) * inputs, outputs)
    return ModelSpec((layer,), (edge,), (x,), outputs, dtype=dtype)


def _with_states(dtype: str) -> ModelSpec:
    """Return an LSTM that reads its initial state and returns its final state."""
    states = tuple(TensorSpec(name, (BATCH, 20)) for name in ("h", "c"))
    layer = _layer(_lstm(return_state=True), dtype)
    return ModelSpec(
        (layer,), (Edge("layer", ("x", "h", "c"), ("y", "h_n", "c_n")),),
        (TensorSpec("x", (BATCH, STEPS, _FEATURES)), *states), ("y", "h_n", "c_n"), dtype=dtype,
    )  # fmt: skip


def _flat(made: Any) -> Array:
    """Return the numbers of one output, or of several."""
    outputs = [*made.values()] if isinstance(made, dict) else [made]
    return np.concatenate([y.reshape(-1) for y in outputs])


def _joined(model: Predictor, given: dict[str, Array]) -> Array:
    return np.hstack([*model.predict(given).values()])


def _forecast(model: Predictor, x: Array) -> Array:
    return forecast(model, x, _STEPS, window=None, feed=None, state=None)[0]


def _pool(model: Predictor, x: Array) -> Array:
    pool = Pool(model, _BATCH)
    keys = [*range(_BATCH)]
    pool.add(keys)
    made = [np.asarray(pool.push(keys, x[:, k : k + 2])) for k in (0, 2, 4)]
    return np.concatenate(made, axis=1)
