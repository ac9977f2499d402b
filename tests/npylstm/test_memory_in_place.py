"""Elementwise operations and normalizations may write into the memory of an input that nobody reads later."""

from __future__ import annotations

import numpy as np
import pytest
from backends import COMPILED
from builders import make_layer

from npylstm import Model, ModelSpec
from npylstm.activations import TANH, Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.base import Operation
from npylstm.ops.dense import Dense
from npylstm.ops.indexing import Select, Slice
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer, PReLU, Rescaling
from npylstm.ops.shaping import Reshape
from npylstm.spec import Edge, TensorSpec

Call = tuple[str, Operation, tuple[str, ...]]


def model_of(calls: list[Call], outputs: tuple[str, ...]) -> tuple[ModelSpec, np.ndarray]:
    rng = np.random.default_rng(0)
    layers = [make_layer(name, operation, rng) for name, operation, _ in calls]
    edges = [Edge(name, inputs, (name,)) for name, _, inputs in calls]
    x = TensorSpec("x", ("batch", 6, 4))
    spec = ModelSpec(tuple(layers), tuple(edges), (x,), outputs)
    return spec, rng.normal(size=(3, 6, 4)).astype("float32")


def size_of(spec: ModelSpec, x: np.ndarray) -> int:
    """Return the length of the work buffer."""
    (segment,) = Model(spec, COMPILED)._engine._runs  # type: ignore[attr-defined]
    return int(segment.program({"x": x}).work_size)


def check(calls: list[Call], *outputs: str) -> tuple[ModelSpec, np.ndarray]:
    """Compare with NumPy: sums of 4 terms of size one."""
    spec, x = model_of(calls, outputs or (calls[-1][0],))
    made, expected = (
        Model(spec, COMPILED).predict(x),
        Model(spec.astype("float64"), "numpy").predict(x),
    )
    pairs = (
        zip(made.values(), expected.values(), strict=True)
        if len(outputs) > 1
        else [(made, expected)]
    )
    for y, right in pairs:
        np.testing.assert_allclose(y, right, rtol=0, atol=64 * 2**-24 * max(1, np.abs(right).max()))
    return spec, x


DENSE: Call = ("d", Dense(4, 4), ("x",))
SQUARE: Call = ("e", Dense(4, 4), ("x",))
ALONE: dict[str, Operation] = {
    "tanh": ActivationLayer(TANH),
    "softmax": ActivationLayer(Activation("softmax", (-1,))),
    "number": Arithmetic("subtract", number=2.0, number_first=True),
    "prelu": PReLU((1, 4)),
    "rescaling": Rescaling(0.5, 3.0),
    "batch_normalization": BatchNormalization(4, -1, 1e-3),
    "layer_normalization": LayerNormalization((4,), 1e-3),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_input(name: str) -> None:
    calls = [DENSE, ("y", ALONE[name], ("d",))]
    check(calls)
    spec, x = check(calls, "d", "y")  # the input is an output, too
    check([*calls, ("z", Arithmetic("add"), ("d", "y"))])  # it is read later
    alone, _ = model_of(calls, ("y",))
    if name not in ("tanh", "softmax"):  # those are part of the dense layer
        assert size_of(alone, x) < size_of(spec, x)


@pytest.mark.parametrize("operation", ["add", "subtract", "divide", "maximum", "power"])
def test_two_inputs(operation: str) -> None:
    square: Call = ("s", Arithmetic("multiply"), ("e", "e"))
    pair = Arithmetic(operation)
    for inputs in (("d", "s"), ("s", "d"), ("s", "s"), ("x", "s"), ("s", "x")):
        if operation != "power" or inputs[0] == "s":  # roots of negative numbers are nan
            check([DENSE, SQUARE, square, ("y", pair, inputs)])


def test_broadcast_inputs() -> None:
    row: Call = ("r", Select(1, 0), ("e",))
    wide: Call = ("w", Reshape(((0, 0), 1, 4)), ("r",))
    for inputs in (("d", "w"), ("w", "d"), ("e", "w"), ("w", "e")):
        check([DENSE, SQUARE, row, wide, ("y", Arithmetic("subtract"), inputs)])


def test_a_view_of_the_same_memory() -> None:
    """The first step of a tensor, subtracted from all of its steps."""
    first: Call = ("f", Slice(1, 0, 1, 1), ("d",))
    for inputs in (("d", "f"), ("f", "d")):
        check([DENSE, first, ("y", Arithmetic("subtract"), inputs)])


def test_several_inputs() -> None:
    for inputs in (
        ("d", "e", "d"),
        ("d", "d", "e"),
        ("d", "e", "x"),
        ("x", "d", "e"),
        ("e", "d", "e"),
    ):
        for operation in ("add", "multiply", "average"):
            check([DENSE, SQUARE, ("y", Arithmetic(operation), inputs)])


def test_chains() -> None:
    check([
        DENSE, ("a", Rescaling(2.0, 1.0), ("d",)), ("b", LayerNormalization((4,), 1e-3), ("a",)),
        ("c", Arithmetic("add"), ("b", "x")), ("e", Dense(4, 4), ("c",)),
        ("f", Arithmetic("add"), ("c", "e")), ("y", ActivationLayer(TANH), ("f",)),
    ])  # fmt: skip


def test_sessions_carry_on() -> None:
    spec, x = model_of([DENSE, ("a", Rescaling(2.0, 1.0), ("d",)), ("y", Arithmetic("add"), ("a", "x"))],
                       ("y",))  # fmt: skip
    model = Model(spec, COMPILED)
    session = model.session(3)
    made = np.stack([session.step(x[:, t]) for t in range(6)], axis=1)
    np.testing.assert_array_equal(made, model.predict(x))
    np.testing.assert_array_equal(model.predict(x), made)  # the buffers are used again


def test_the_flag_is_of_kernels_that_write_after_they_read() -> None:
    from npylstm.kernels import table

    served = {row.serves for row in table._ROWS if row.in_place}
    assert served == {"activation", "layer_normalization", "rms_normalization", "arithmetic", "prelu",
                      "rescaling", "batch_normalization"}  # fmt: skip
