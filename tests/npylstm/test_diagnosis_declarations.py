"""What operations declare for comparison and diagnosis is true of every configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from operations.case import Case
from operations.cases import CASES
from operations.probe import Probe
from operations.sizes import SIZES

from npylstm.activations import LINEAR
from npylstm.ops import OPERATIONS
from npylstm.ops.base import Operation
from npylstm.parity.mistakes import KINDS
from npylstm.spec import LayerSpec

Array = np.ndarray[Any, Any]
ROLES = {
    "kernel", "bias", "recurrent_kernel", "recurrent_bias", "mean", "variance", "scale", "offset",
    "table", "projection", "projection_bias", "peephole",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Operand:
    """An array that only `x @ this` or `x + this` can use."""

    array: Array
    __array_ufunc__ = None

    def __rmatmul__(self, x: Array) -> Array:
        assert self.array.ndim == 2
        product: Array = x @ self.array
        return product

    def __radd__(self, x: Array) -> Array:
        assert self.array.ndim == 1
        total: Array = x + self.array
        return total


def probe_of(case: Case) -> Probe:
    taken = ("dtype", "integer", "masks", "positive")
    return Probe(case.layer, case.shapes, **{k: v for k, v in case.options.items() if k in taken})


def declaring(method: str) -> list[Case]:
    """The cases of operations that override a method."""
    return [c for c in CASES if getattr(type(c.layer), method) is not getattr(Operation, method)]


@pytest.mark.parametrize("case", declaring("conventions"), ids=str)
def test_conventions_are_valid_layers_of_known_kinds(case: Case) -> None:
    probe = probe_of(case)
    for other in case.layer.conventions(probe.spec.weights):
        assert other.kind in KINDS
        weights = probe.spec.weights if other.weights is None else other.weights
        changed = LayerSpec("op", other.operation, weights)
        assert not [*changed.problems(probe.dtype)]
        assert changed != probe.spec or "epsilon=0.0" in str(case)  # where epsilon is added is one
        assert other.operation.output_names() == case.layer.output_names()


@pytest.mark.parametrize("case", [c for c in CASES if c.layer.uses_matrix_products], ids=str)
def test_packed_arrays_are_used_in_products_and_sums_alone(case: Case) -> None:
    probe = probe_of(case)
    inputs = probe.draw(SIZES[0])
    state = probe.state(probe.batch_of(inputs))
    packed = case.layer.pack(probe.spec.weights)
    operands: Any = {name: Operand(array) for name, array in packed.items()}
    with np.errstate(invalid="ignore"):  # acos and others have no value for some inputs
        expected, _ = case.layer.forward(packed, inputs, state)
        found, _ = case.layer.forward(operands, inputs, state)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("case", declaring("magnitudes"), ids=str)
def test_magnitudes_are_upper_bounds(case: Case) -> None:
    probe = probe_of(case)
    layer = case.layer.with_activations(dict.fromkeys(case.layer.activations, LINEAR))
    inputs = probe.draw(SIZES[0])
    shapes = [x.shape for x in inputs]
    bounds = [np.abs(x).reshape(-1, x.shape[-1]).max(axis=0) for x in inputs if x.ndim]
    found = layer.magnitudes(probe.spec.weights, bounds, shapes) if inputs else None
    if found is not None:
        (y,), _ = layer.forward(layer.pack(probe.spec.weights), inputs, {})
        assert (np.abs(y) <= found * (1 + 1e-6)).all()


@pytest.mark.parametrize("kind", OPERATIONS)
def test_roles_parts_and_activations_fit_the_layer(kind: str) -> None:
    for layer in (case.layer for case in CASES if case.layer.kind == kind):
        assert set(layer.weight_roles.values()) <= ROLES
        assert layer.with_activations(layer.activations) == layer
        parts = layer.recurrent_parts()
        assert bool(parts) == layer.is_recurrent
        if parts:
            assert layer.with_recurrent_parts(parts) == layer
            shapes = {
                f"{k}{n}": s for k, part in parts.items() for n, s in part.weight_shapes().items()
            }
            assert shapes == layer.weight_shapes()


@pytest.mark.parametrize("case", [c for c in CASES if c.layer.returns_input], ids=str)
def test_the_input_is_returned(case: Case) -> None:
    inputs = probe_of(case).draw(SIZES[0])
    assert case.layer.forward({}, inputs, {})[0][0] is inputs[0]


@pytest.mark.parametrize("case", [c for c in CASES if c.layer.reduction], ids=str)
def test_a_reduction_takes_an_entry_or_combines_all(case: Case) -> None:
    (x,) = probe_of(case).draw(SIZES[0])
    assert case.layer.reduction is not None
    axis, how = case.layer.reduction
    words: dict[str, Any] = {
        "norm": np.linalg.norm,
        "l1": lambda x, axis: np.linalg.norm(x, 1, axis),
        "sum_square": lambda x, axis: np.linalg.norm(x, axis=axis) ** 2,
        "log_sum": lambda x, axis: np.log(np.sum(x, axis)),
        "log_sum_exp": lambda x, axis: np.log(np.sum(np.exp(x), axis)),
    }
    combine: Any = words.get(str(how)) or getattr(np, str(how), None)
    expected = x.take(how, axis) if isinstance(how, int) else combine(x, axis=axis)
    np.testing.assert_allclose(case.layer.forward({}, [x], {})[0][0], expected)
