"""Cells of recurrent layers written out in operators of ONNX, and loops over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx_graphs import Array, body, draw, graph_of, node, value

__all__ = [
    "BOOL",
    "ELMAN",
    "ELMAN_STATE",
    "GOING",
    "INDEX",
    "INT",
    "LSTM",
    "LSTM_STATES",
    "SIZES",
    "STEPS",
    "WEIGHTS",
    "F",
    "U",
    "X",
    "feeds",
    "loop_of",
    "state",
    "zeros",
]  # fmt: skip

F, U = 3, 4
RNG = np.random.default_rng(11)
BOOL, INT = TensorProto.BOOL, TensorProto.INT64
WEIGHTS = {
    "W": draw(RNG, F, 4 * U), "R": draw(RNG, U, 4 * U), "b": draw(RNG, 4 * U),
    "Wh": draw(RNG, F, U), "Rh": draw(RNG, U, U), "bh": draw(RNG, U),
}  # fmt: skip
X: Mapping[str, Sequence[int | str]] = {"x": ["steps", "batch", F]}


def feeds(steps: int = 6, batch: int = 2) -> dict[str, Array]:
    return {"x": draw(np.random.default_rng(steps), steps, batch, F)}


def state(name: str) -> Any:
    return value(name, ["batch", U])


# h = tanh(x W + h R + b), from "xt" and "h" to "new".
ELMAN = [
    node("MatMul", ["xt", "Wh"], ["p"]),
    node("MatMul", ["h", "Rh"], ["q"]),
    node("Add", ["p", "q"], ["pq"]),
    node("Add", ["pq", "bh"], ["s"]),
    node("Tanh", ["s"], ["new"]),
]
# Gates i, c, f, o in one product, as TensorFlow has them; from "xt", "h", "c" to "new" and "newc".
LSTM = [
    node("Concat", ["xt", "h"], ["both"], axis=1),
    node("Concat", ["W", "R"], ["kernel"], axis=0),
    node("MatMul", ["both", "kernel"], ["product"]),
    node("Add", ["product", "b"], ["z"]),
    node("Split", ["z"], ["zi", "zc", "zf", "zo"], axis=1),
    *[node("Sigmoid", [f"z{g}"], [f"{g}_gate"]) for g in "ifo"],
    node("Tanh", ["zc"], ["candidate"]),
    node("Mul", ["f_gate", "c"], ["kept"]),
    node("Mul", ["i_gate", "candidate"], ["written"]),
    node("Add", ["kept", "written"], ["newc"]),
    node("Tanh", ["newc"], ["squashed"]),
    node("Mul", ["o_gate", "squashed"], ["new"]),
]


ELMAN_STATE, LSTM_STATES = {"h": "new"}, {"h": "new", "c": "newc"}


def zeros(name: str) -> list[Any]:
    """Zeros (batch, units) of the batch of x."""
    return [
        node("Shape", ["x"], [f"{name}_shape"], start=1, end=2),
        node("Concat", [f"{name}_shape", "units"], [f"{name}_sizes"], axis=0),
        node("ConstantOfShape", [f"{name}_sizes"], [name]),
    ]


SIZES = {"units": np.array([U]), "first": np.array(0), "one": np.array(1), "true": np.array(True)}


INDEX, GOING = value("i", [], INT), value("going", [], BOOL)
STEPS = [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "first"], ["n"], axis=0)]


def loop_of(
    step: Sequence[Any], carried: Mapping[str, str], made: Sequence[str], *,
    limit: str = "n", condition: str = "", read: Sequence[Any] | None = None,
    going: Sequence[Any] = (), before: Sequence[Any] = (), more: Mapping[str, Any] = {},
) -> Any:  # fmt: skip
    """Return a Loop over the steps of x; ``carried`` has new values by old ones."""
    read = [node("Gather", ["x", "i"], ["xt"], axis=0)] if read is None else read
    end = [*going] or [node("Identity", ["going"], ["goes"])]
    names = [value(f"{name}_", None) for name in made]
    own = body(
        [*read, *step, *end, *[node("Identity", [name], [f"{name}_"]) for name in made]],
        [INDEX, GOING, *[state(name) for name in carried]],
        [value("goes", [], BOOL), *[state(name) for name in carried.values()], *names],
    )
    finals = [f"{name}_final" for name in carried]
    call = node(
        "Loop", [limit, condition, *[f"{name}0" for name in carried]],
        [*finals, *[f"{name}s" for name in made]], name="loop", body=own,
    )  # fmt: skip
    nodes = [*STEPS, *[n for name in carried for n in zeros(f"{name}0")], *before, call]
    return graph_of(nodes, X, call.output, {**WEIGHTS, **SIZES, **more})
