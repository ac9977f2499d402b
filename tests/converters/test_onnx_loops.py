"""Loops of ONNX, against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from backends import BACKENDS
from onnx import TensorProto
from onnx_cells import (
    BOOL,
    ELMAN,
    ELMAN_STATE,
    GOING,
    INDEX,
    INT,
    LSTM,
    LSTM_STATES,
    SIZES,
    STEPS,
    WEIGHTS,
    F,
    X,
    feeds,
    loop_of,
    state,
    zeros,
)  # fmt: skip
from onnx_graphs import agree, body, graph_of, node, predict, value

import npylstm
from npylstm import UnsupportedError


def backwards() -> Any:
    read = [
        node("Sub", ["n", "i"], ["left"]), node("Sub", ["left", "one"], ["at"]),
        node("Gather", ["x", "at"], ["xt"], axis=0),
    ]  # fmt: skip
    return loop_of(ELMAN, ELMAN_STATE, ["new"], read=read)


def with_a_counter_of_its_own() -> Any:
    """TensorFlow's loops count themselves, and end by Less; the limit is too large."""
    read = [node("Gather", ["x", "t"], ["xt"], axis=0), node("Add", ["t", "one"], ["t_new"])]
    going = [
        node("Less", ["t_new", "n"], ["below"]), node("Less", ["i", "most"], ["few"]),
        node("And", ["below", "few"], ["goes"]),
    ]  # fmt: skip
    model = loop_of(
        ELMAN, {"t": "t_new", **ELMAN_STATE}, ["new"], read=read, going=going, limit="most",
        condition="true", more={"most": np.array(2**40), "t0": np.array(0)},
    )  # fmt: skip
    (call,) = [n for n in model.graph.node if n.op_type == "Loop"]
    own = next(a.g for a in call.attribute if a.name == "body")
    for tensors, name in ((own.input, "t"), (own.output, "t_new")):
        (tensor,) = [t for t in tensors if t.name == name]
        tensor.CopyFrom(value(name, [], INT))
    model.graph.output[0].CopyFrom(value("t_final", [], INT))
    for made in [n for n in model.graph.node if n.output[0].startswith("t0")]:
        model.graph.node.remove(made)
    return model


def by_slices() -> Any:
    """The step is cut out with an axis of one, which is removed."""
    read = [
        node("Unsqueeze", ["i", "axis"], ["from"]), node("Add", ["i", "one"], ["j"]),
        node("Unsqueeze", ["j", "axis"], ["to"]), node("Gather", ["x", "from"], ["cut"], axis=0),
        node("Squeeze", ["cut", "axis"], ["xt"]),
    ]  # fmt: skip
    return loop_of(ELMAN, ELMAN_STATE, ["new"], read=read, more={"axis": np.array([0])})


def masked() -> Any:
    """Where a mask is false, the state stays."""
    step = [
        *ELMAN[:-1],
        node("Tanh", ["s"], ["changed"]),
        node("Gather", ["mask", "i"], ["m"], axis=0),
        node("Where", ["m", "changed", "h"], ["new"]),
    ]
    mask = [
        node("ReduceSum", ["x", "last"], ["sums"], keepdims=1),
        node("Greater", ["sums", "nothing"], ["mask"]),
    ]
    more = {"last": np.array([-1]), "nothing": np.float32(0)}
    return loop_of(step, ELMAN_STATE, ["new"], before=mask, more=more)


def captured() -> Any:
    """The body reads a tensor that is the same in every step, and a constant."""
    mean = [node("ReduceMean", ["x"], ["context"], axes=[0], keepdims=0)]
    step = [node("MatMul", ["context", "Wh"], ["more"]), *ELMAN[:-1], node("Add", ["s", "more"], ["sm"]),
            node("Tanh", ["sm"], ["new"])]  # fmt: skip
    return loop_of(step, ELMAN_STATE, ["new"], before=mean)


def if_in_loop() -> Any:
    then = body([node("Tanh", ["s"], ["a"])], [], ["a"])
    other = body([node("Sigmoid", ["s"], ["a"])], [], ["a"])
    step = [*ELMAN[:-1], node("If", ["true"], ["new"], then_branch=then, else_branch=other)]
    return loop_of(step, ELMAN_STATE, ["new"])


def a_fixed_number() -> Any:
    return loop_of(ELMAN, ELMAN_STATE, ["new"], limit="three", more={"three": np.array(3)})


def final_states_only() -> Any:
    return loop_of(LSTM, LSTM_STATES, [])


LOOPS: Mapping[str, Callable[[], Any]] = {
    "elman": lambda: loop_of(ELMAN, ELMAN_STATE, ["new"]),
    "condition": lambda: loop_of(ELMAN, ELMAN_STATE, ["new"], condition="true"),
    "lstm": lambda: loop_of(LSTM, LSTM_STATES, ["new"]),
    "two outputs": lambda: loop_of(LSTM, LSTM_STATES, ["newc", "new"]),
    "final states": final_states_only,
    "backwards": backwards,
    "counter": with_a_counter_of_its_own,
    "slices": by_slices,
    "masked": masked,
    "captured": captured,
    "if": if_in_loop,
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_loops_have_the_numbers_of_onnxruntime(name: str) -> None:
    agree(LOOPS[name](), feeds(), feeds(1, 1), feeds(9, 3))


def test_a_loop_of_a_fixed_number_of_steps() -> None:
    model = a_fixed_number()
    model.graph.input[0].CopyFrom(value("x", [5, "batch", F]))
    agree(model, feeds(5, 2), feeds(5, 1))


STREAMS = ["elman", "condition", "lstm", "counter", "slices", "masked", "if"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STREAMS)
def test_streams_equal_the_whole(name: str, backend: str) -> None:
    spec = nc.from_onnx(LOOPS[name]())
    model = npylstm.Model(spec.subgraph(["x"], spec.outputs[-1:]), backend)
    x = feeds(12)["x"]
    whole = model.predict(x)
    session = model.session(2)
    parts = [session.push(part) for part in np.split(x, [1, 5, 6])]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "message"), [
    ("backwards", "reverses the order along the time axis"),
    ("captured", "context: takes the mean along the time axis"),
])  # fmt: skip
def test_loops_that_need_later_steps_have_no_stream(name: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        npylstm.Model(nc.from_onnx(LOOPS[name]())).session()


def test_a_loop_keeps_its_file_and_its_parameters(tmp_path: Any) -> None:
    spec = nc.from_onnx(masked())
    npylstm.save(spec, tmp_path / "m.npz")
    again = npylstm.load(tmp_path / "m.npz")
    assert again.spec == spec
    (entry,) = {e["layer"] for e in spec.provenance["tensors"]}
    assert {e["source"] for e in spec.provenance["tensors"]} == {"Wh", "Rh", "bh"}
    assert spec[entry].kind == "scan"
    x = feeds()["x"]
    for own, theirs in zip(
        predict(again.spec, {"x": x}).values(), predict(spec, {"x": x}).values(), strict=True
    ):
        np.testing.assert_array_equal(own, theirs)


# --- refusals ------------------------------------------------------------------------------------


def ends_by_value() -> Any:
    going = [
        node("ReduceMax", ["new"], ["top"], keepdims=0), node("Less", ["top", "half"], ["goes"]),
    ]  # fmt: skip
    return loop_of(ELMAN, ELMAN_STATE, ["new"], going=going, more={"half": np.float32(0.5)})


def begins_by_value() -> Any:
    model = loop_of(ELMAN, ELMAN_STATE, ["new"], condition="may")
    model.graph.input.append(value("may", [], BOOL))
    return model


def limit_by_value() -> Any:
    model = loop_of(ELMAN, ELMAN_STATE, ["new"], limit="m")
    model.graph.input.append(value("m", [], INT))
    return model


def endless() -> Any:
    return loop_of(ELMAN, ELMAN_STATE, ["new"], limit="", condition="true")


def far_too_long() -> Any:
    return loop_of(ELMAN, ELMAN_STATE, ["new"], limit="far", more={"far": np.array(10**12)})


def every_second() -> Any:
    read = [node("Mul", ["i", "two"], ["at"]), node("Gather", ["x", "at"], ["xt"], axis=0)]
    return loop_of(ELMAN, ELMAN_STATE, ["new"], read=read, more={"two": np.array(2)})


def reads_beyond_the_end() -> Any:
    read = [node("Add", ["i", "one"], ["at"]), node("Gather", ["x", "at"], ["xt"], axis=0)]
    return loop_of(ELMAN, ELMAN_STATE, ["new"], read=read)


def computes_with_the_number() -> Any:
    step = [
        *ELMAN[:-1], node("Cast", ["i"], ["t"], to=TensorProto.FLOAT),
        node("Mul", ["s", "t"], ["st"]), node("Tanh", ["st"], ["new"]),
    ]  # fmt: skip
    return loop_of(step, ELMAN_STATE, ["new"])


def state_that_grows() -> Any:
    step = [*ELMAN[:-1], node("Tanh", ["s"], ["t"]), node("Concat", ["t", "t"], ["new"], axis=1)]
    return loop_of(step, ELMAN_STATE, ["t"])


def unknown_operator() -> Any:
    return loop_of([*ELMAN[:-1], node("Bernoulli", ["s"], ["new"])], ELMAN_STATE, ["new"])


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (ends_by_value, "Loop loop: when it ends depends on the values of an input"),
    (begins_by_value, "Loop loop: whether it begins depends on the values of an input"),
    (limit_by_value, "Loop loop: expected sizes or a constant, got a tensor that is computed"),
    (endless, "Loop loop: never ends: it has neither a limit nor a condition"),
    (
        far_too_long,
        "Loop loop: has 1000000000000 iterations, and no condition that ends it earlier",
    ),
    (every_second, "Mul at: computes with the number of the iteration"),
    (reads_beyond_the_end, "Loop loop: reads steps entries of a tensor with steps"),
    (computes_with_the_number, "Mul st: computes with the number of the iteration"),
    (
        state_that_grows,
        r"MatMul q: expected 4 features, got an input \(batch, 8\); Loop loop: its body",
    ),
    (unknown_operator, "Bernoulli new: is not supported"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_loops_that_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        nc.from_onnx(make())


def test_a_loop_that_reads_a_tensor_from_both_ends() -> None:
    """The numbers of iterations are in Constant nodes with integers."""
    read = [
        node("Gather", ["x", "i"], ["front"], axis=0),
        node("Constant", [], ["unit"], value_int=1),
        node("Sub", ["n", "unit"], ["last"]),
        node("Sub", ["last", "i"], ["j"]),
        node("Gather", ["x", "j"], ["other"], axis=0),
        node("Mul", ["front", "other"], ["xt"]),
    ]
    agree(loop_of(ELMAN, ELMAN_STATE, ["new"], read=read), feeds(6), feeds(1, 1))


def test_a_counter_that_adds_the_integer_of_a_constant() -> None:
    step = [
        node("Constant", [], ["unit"], value_int=1),
        node("Add", ["k", "unit"], ["next"]),
        node("Gather", ["x", "k"], ["xt"], axis=0),
        *ELMAN,
        node("Identity", ["going"], ["goes"]),
    ]
    own = body(
        step, [INDEX, GOING, value("k", [], INT), state("h")],
        [value("goes", [], BOOL), value("next", [], INT), state("new")],
    )  # fmt: skip
    call = node("Loop", ["n", "", "first", "h0"], ["k_final", "h_final"], body=own)
    model = graph_of([*STEPS, *zeros("h0"), call], X, ["h_final"], {**WEIGHTS, **SIZES})
    agree(model, feeds(4))
