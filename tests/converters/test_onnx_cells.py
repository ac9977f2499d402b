"""Loops that are recurrent layers become these layers; loops that only resemble one do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx_cells import ELMAN, ELMAN_STATE, LSTM, LSTM_STATES, F, U, feeds, loop_of
from onnx_graphs import agree, draw, node

from npylstm import ModelSpec

RNG = np.random.default_rng(5)
# A GRU in the order z, r: h = (1 - z) n + z h, or with the roles of z and 1 - z exchanged.
GATES = [
    *[node("MatMul", ["xt", f"W{g}"], [f"x{g}"]) for g in "zrn"],
    *[node("MatMul", ["h", f"R{g}"], [f"h{g}"]) for g in "zr"],
    *[node("Add", [f"x{g}", f"h{g}"], [f"s{g}"]) for g in "zr"],
    *[node("Add", [f"s{g}", f"b{g}"], [f"a{g}"]) for g in "zr"],
    *[node("Sigmoid", [f"a{g}"], [g]) for g in "zr"],
    node("Sub", ["unit", "z"], ["left"]),
]
AFTER = [node("MatMul", ["h", "Rn"], ["hn"]), node("Add", ["hn", "c"], ["hc"]),
         node("Mul", ["r", "hc"], ["part"])]  # fmt: skip
BEFORE = [node("Mul", ["r", "h"], ["rh"]), node("MatMul", ["rh", "Rn"], ["part"])]
CANDIDATE = [node("Add", ["xn", "part"], ["sn"]), node("Add", ["sn", "bn"], ["an"]),
             node("Tanh", ["an"], ["n_new"])]  # fmt: skip
GRU_ARRAYS = {
    **{f"W{g}": draw(RNG, F, U) for g in "zrn"}, **{f"R{g}": draw(RNG, U, U) for g in "zrn"},
    **{f"b{g}": draw(RNG, U) for g in "zrn"}, "c": draw(RNG, U), "unit": np.float32(1),
}  # fmt: skip
FACTORS = {"0.9": np.float32(0.9), "0.01": np.float32(0.01), "low": np.float32(-50),
           "high": np.float32(50)}  # fmt: skip


def gru(reset: Sequence[Any], new: str, old: str) -> list[Any]:
    kept = [node("Mul", [new, "n_new"], ["p"]), node("Mul", [old, "h"], ["q"]),
            node("Add", ["p", "q"], ["new"])]  # fmt: skip
    return [*GATES, *reset, *CANDIDATE, *kept]


def instead(step: Sequence[Any], output: str, *nodes: Any) -> list[Any]:
    """Replace the node that makes a tensor; ``output`` with a prime is what it made."""
    made = []
    for own in step:
        if own.output[0] == output:
            own = node(own.op_type, [*own.input], [f"{output}'"])
            made += [own, *nodes]
        else:
            made.append(own)
    return made


def loops_in(spec: ModelSpec) -> list[str]:
    kinds = ("lstm", "gru", "simple_rnn", "scan")
    return [layer.kind for layer in spec.layers if layer.kind in kinds]


CELLS = {
    "a simple recurrent layer": (ELMAN, ELMAN_STATE, "simple_rnn"),
    "an LSTM": (LSTM, LSTM_STATES, "lstm"),
    "a GRU, reset after": (gru(AFTER, "left", "z"), ELMAN_STATE, "gru"),
    "a GRU, reset before": (gru(BEFORE, "left", "z"), ELMAN_STATE, "gru"),
    "a GRU with the other update": (gru(AFTER, "z", "left"), ELMAN_STATE, "gru"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_the_layer(name: str) -> None:
    step, states, kind = CELLS[name]
    spec = agree(loop_of(step, states, ["new"], more=GRU_ARRAYS), feeds(6), feeds(1, 1))
    assert loops_in(spec) == [kind]


NEARLY = {
    "a smaller state": (
        instead(ELMAN, "new", node("Mul", ["new'", "0.9"], ["new"])), ELMAN_STATE,
    ),
    "a larger state": (instead(ELMAN, "new", node("Add", ["new'", "0.01"], ["new"])), ELMAN_STATE),
    "a clipped cell state": (
        instead(LSTM, "newc", node("Clip", ["newc'", "low", "high"], ["newc"])), LSTM_STATES,
    ),
    "a shifted cell state": (
        instead(LSTM, "newc", node("Add", ["newc'", "0.01"], ["newc"])), LSTM_STATES,
    ),
    "a damped forget gate": (
        instead(LSTM, "f_gate", node("Mul", ["f_gate'", "0.9"], ["f_gate"])), LSTM_STATES,
    ),
    "an update of another sum": (
        instead(gru(AFTER, "left", "z"), "left", node("Mul", ["left'", "0.9"], ["left"])),
        ELMAN_STATE,
    ),
    "a clipped argument": (
        instead(instead(ELMAN, "s", node("Clip", ["s'", "low", "high"], ["s"])), "new",
                node("Relu", ["s"], ["new"])), ELMAN_STATE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEARLY)
def test_a_graph_that_is_nearly_a_cell_is_none(name: str) -> None:
    """Also where the difference shows only in large numbers: limits of 50."""
    step, states = NEARLY[name]
    model = loop_of(step, states, ["new"], more={**GRU_ARRAYS, **FACTORS})
    large = {"x": 100 * feeds(6)["x"]}
    spec = agree(model, feeds(6), large, atol=1e-5)
    assert loops_in(spec) == ["scan"]


def kept_where(step: Sequence[Any], states: Sequence[str], *mask: Any) -> list[Any]:
    """Keep the states where a mask of the step's entries says so."""
    made = [*mask, *step]
    for new, old in states:
        made = instead(made, new, node("Where", ["m", f"{new}'", old], [new]))
    return made


RULES = {
    "zeros": [node("Abs", ["xt"], ["size"]), node("ReduceMax", ["size"], ["most"], axes=[1]),
              node("Greater", ["most", "nothing"], ["m"])],
    "squares": [node("Mul", ["xt", "xt"], ["size"]), node("ReduceMax", ["size"], ["most"], axes=[1]),
                node("Greater", ["most", "nothing"], ["m"])],
    "a marker": [node("ReduceMin", ["xt"], ["least"], axes=[1]),
                 node("Equal", ["least", "marker"], ["is"]), node("Not", ["is"], ["m"])],
}  # fmt: skip
KEPT = {"an LSTM": (("new", "h"), ("newc", "c")), "a GRU, reset before": (("new", "h"),),
        "a simple recurrent layer": (("new", "h"),)}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", KEPT)
def test_a_step_that_skips_padding_is_no_layer(name: str, rule: str) -> None:
    """Random numbers are never zero, nor a marker: the structure of the step has to tell."""
    step, states, _ = CELLS[name]
    arrays = {**GRU_ARRAYS, "nothing": np.float32(0), "marker": np.float32(-9)}
    x = feeds(6)["x"]
    x[2:4, 0], x[5, 1] = (-9, -9) if rule == "a marker" else (0, 0)
    masked = kept_where(step, KEPT[name], *RULES[rule])
    spec = agree(loop_of(masked, states, ["new"], more=arrays), {"x": x})
    assert loops_in(spec) == ["scan"]


def test_a_further_gate_that_is_usually_one() -> None:
    """``sigmoid(1e9 (x x).sum())`` is one half where all entries are zero, else 1."""
    gate = [node("Mul", ["xt", "xt"], ["squares"]), node("MatMul", ["squares", "Wm"], ["sum"]),
            node("Sigmoid", ["sum"], ["on"])]  # fmt: skip
    step = instead(gru(BEFORE, "left", "z"), "new", node("Mul", ["new'", "on"], ["new"]))
    arrays = {**GRU_ARRAYS, "Wm": np.full((F, U), 1e9, np.float32)}
    x = feeds(6)["x"]
    x[3, 0] = 0
    spec = agree(loop_of([*gate, *step], ELMAN_STATE, ["new"], more=arrays), {"x": x})
    assert loops_in(spec) == ["scan"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_mask_of_a_layer_has_an_entry_for_each_sample(shared: bool) -> None:
    """A mask of one entry for all samples is none."""
    axes = [1, 2] if shared else [2]
    mask = [node("ReduceSum", ["x", "axes"], ["sums"]), node("Greater", ["sums", "no"], ["mask1"]),
            node("Squeeze", ["mask1", "last"], ["mask"])]  # fmt: skip
    read = [node("Gather", ["x", "i"], ["xt"], axis=0), node("Gather", ["mask", "i"], ["m1"], axis=0),
            node("Unsqueeze", ["m1", "unit"], ["m"])]  # fmt: skip
    arrays = {"axes": np.array(axes), "no": np.float32(0), "last": np.array([2]),
              "unit": np.array([1])}  # fmt: skip
    step = kept_where(ELMAN, (("new", "h"),))
    model = loop_of(step, ELMAN_STATE, [], read=read, before=mask, more=arrays)
    spec = agree(model, feeds(6), feeds(1, 1))
    assert loops_in(spec) == ["scan" if shared else "simple_rnn"]
