"""LSTM, GRU and RNN of ONNX with every attribute, against onnxruntime and an oracle in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import (
    ATOL,
    GATES,
    Array,
    agree,
    draw,
    graph_of,
    node,
    predict,
    recurrent_weights,
    run_onnxruntime,
    value,
)

from npylstm import UnsupportedError

FEATURES, UNITS = 3, 4
X = draw(np.random.default_rng(7), 6, 2, FEATURES)  # (steps, batch, features)
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
OUTPUTS = {"LSTM": ["Y", "Y_h", "Y_c"], "GRU": ["Y", "Y_h"], "RNN": ["Y", "Y_h"]}


def operator(
    kind: str, *, opset: int = 17, lengths: bool = False, initial: bool = False,
    peepholes: bool = False, bias: bool = True, scale: float = 1.0, **attributes: Any,
) -> Any:  # fmt: skip
    """Return a model of one operator, whose states and lengths are inputs of the graph."""
    directions = DIRECTIONS[attributes.get("direction", "forward")]
    arrays = {
        name: array * np.float32(scale)
        for name, array in recurrent_weights(kind, FEATURES, UNITS, directions).items()
    }
    inputs = [value("X", ["steps", "batch", FEATURES])]
    if lengths:
        inputs.append(value("lengths", ["batch"], TensorProto.INT32))
    states = ["h0", "c0"][: len(OUTPUTS[kind]) - 1] if initial else []
    inputs += [value(name, [directions, "batch", UNITS]) for name in states]
    names = ["X", "W", "R", "B" if bias else "", "lengths" if lengths else "", *states]
    if not bias:
        del arrays["B"]
    if peepholes:
        arrays["P"] = draw(np.random.default_rng(9), directions, 3 * UNITS)
        names = [*names, *[""] * (7 - len(names)), "P"]
    while not names[-1]:
        names.pop()
    call = node(kind, names, OUTPUTS[kind], name="rnn", hidden_size=UNITS, **attributes)
    return graph_of([call], inputs, OUTPUTS[kind], arrays, opset)


def feeds(directions: int, kind: str, steps: int = 6, batch: int = 2) -> dict[str, Array]:
    rng = np.random.default_rng(steps)
    made = {"X": draw(rng, steps, batch, FEATURES)}
    made["lengths"] = np.array([steps, *range(1, batch)], np.int32)
    made["h0"], made["c0"] = (draw(rng, directions, batch, UNITS) for _ in "hc")
    return made


def check(model: Any, kind: str, atol: float = ATOL) -> Any:
    names = {v.name for v in model.graph.input}
    directions = next(t.dims[0] for t in model.graph.initializer if t.name == "W")
    several = [
        {name: array for name, array in feeds(directions, kind, *sizes).items() if name in names}
        for sizes in ((6, 2), (1, 1), (9, 3))
    ]
    return agree(model, *several, atol=atol)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("inputs", ["x", "lengths", "initial", "lengths and initial"])
def test_directions_lengths_and_initial_states(kind: str, direction: str, inputs: str) -> None:
    model = operator(
        kind, direction=direction, lengths="lengths" in inputs, initial="initial" in inputs
    )
    spec = check(model, kind)
    assert spec.inputs[0].shape[:2] == ("steps", "batch")


@pytest.mark.parametrize("opset", [7, 11, 14, 17, 21])
@pytest.mark.parametrize("kind", GATES)
def test_versions_of_the_operator_set(kind: str, opset: int) -> None:
    check(operator(kind, opset=opset, direction="bidirectional", initial=True), kind)
    check(operator(kind, opset=opset, bias=False), kind)


# Names for an LSTM, alphas, betas. Each activation with parameters takes the next ones of the lists.
ACTIVATIONS: Mapping[str, tuple[list[str], list[float], list[float]]] = {
    "defaults": (["Sigmoid", "Tanh", "Tanh"], [], []),
    "hard sigmoid": (["HardSigmoid", "Tanh", "Softsign"], [0.3], [0.4]),
    "relu": (["Sigmoid", "Relu", "Tanh"], [], []),
    "several": (["HardSigmoid", "LeakyRelu", "ScaledTanh"], [0.3, 0.05, 1.2], [0.4, 0.7]),
    "alpha only": (["Sigmoid", "ThresholdedRelu", "Elu"], [0.3, 0.8], []),
    "affine": (["Affine", "Tanh", "Tanh"], [0.4], [0.3]),
    "softplus": (["Sigmoid", "Softplus", "Tanh"], [], []),
    "defaults of parameters": (["HardSigmoid", "LeakyRelu", "Elu"], [], []),
}
ACTIVATION_COUNT = {"LSTM": 3, "GRU": 2, "RNN": 1}


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("row", ACTIVATIONS)
def test_activations(kind: str, row: str, direction: str) -> None:
    names, alpha, beta = ACTIVATIONS[row]
    own, count = names[: ACTIVATION_COUNT[kind]], DIRECTIONS[direction]
    if kind == "RNN":  # its only activation is the one that differs
        own = [names[0 if row in ("hard sigmoid", "affine") else 1]]
    attributes: dict[str, Any] = {"activations": own * count}
    attributes |= {"activation_alpha": alpha * count} if alpha else {}
    attributes |= {"activation_beta": beta * count} if beta else {}
    check(operator(kind, direction=direction, **attributes), kind, 1e-5)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}), ("GRU", {}), ("RNN", {}),
    ("GRU", {"linear_before_reset": 1}),
    ("LSTM", {"input_forget": 1}),
    ("LSTM", {"peepholes": True}),
    ("LSTM", {"peepholes": True, "input_forget": 1}),
]  # fmt: skip


@pytest.mark.parametrize("clip", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("kind", "attributes"), VARIANTS)
def test_variants_and_clip(kind: str, attributes: dict[str, Any], clip: float) -> None:
    """With weights so large that a threshold of one matters, too."""
    more = {"clip": clip} if clip else {}
    for direction in ("reverse", "bidirectional"):
        check(operator(kind, scale=2.5, direction=direction, **attributes, **more), kind, 5e-6)
    if clip:
        one = {"X": X}
        spec, free = (
            nc.from_onnx(operator(kind, scale=2.5, **attributes, **m)) for m in (more, {})
        )
        assert np.abs(predict(spec, one)["Y"] - predict(free, one)["Y"]).max() > 0.01


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("lengths", [False, True])
def test_layout_1_is_layout_0_with_the_batch_first(
    kind: str, direction: str, lengths: bool
) -> None:
    """onnxruntime has layout 0 only."""
    options: dict[str, Any] = {"direction": direction, "initial": True, "lengths": lengths}
    usual, turned = operator(kind, **options), operator(kind, layout=1, **options)
    turned.graph.input[0].CopyFrom(value("X", ["batch", "steps", FEATURES]))
    for tensor in turned.graph.input:
        if tensor.name in ("h0", "c0"):
            tensor.CopyFrom(value(tensor.name, ["batch", DIRECTIONS[direction], UNITS]))
    arrays = feeds(DIRECTIONS[direction], kind, 5, 3)
    names = [v.name for v in usual.graph.input]
    expected = run_onnxruntime(usual, {name: arrays[name] for name in names})
    spec = nc.from_onnx(turned)
    assert spec.inputs[0].shape == ("batch", "steps", FEATURES)
    made = predict(spec, {n: a if n == "lengths" else a.swapaxes(0, 1) for n, a in arrays.items()})
    y = expected.pop("Y").transpose(2, 0, 1, 3)  # of (steps, directions, batch, units)
    np.testing.assert_allclose(made["Y"], y, rtol=0, atol=ATOL)
    for name, state in expected.items():
        np.testing.assert_allclose(made[name], state.swapaxes(0, 1), rtol=0, atol=ATOL)


def test_lengths_that_are_the_number_of_steps_are_none() -> None:
    model = operator("GRU", lengths=True)
    model.graph.input[0].CopyFrom(value("X", [6, 2, FEATURES]))
    model.graph.input[1].CopyFrom(value("lengths", [2], TensorProto.INT32))
    spec = nc.from_onnx(model, constants={"lengths": [6, 6]})
    assert [layer.kind for layer in spec.layers] == ["gru", "reshape", "stack"]
    with pytest.raises(UnsupportedError, match=r"sequence_lens: is the constant \[6, 3\]"):
        nc.from_onnx(model, constants={"lengths": [6, 3]})


@pytest.mark.parametrize("kind", GATES)
def test_weights_that_the_graph_puts_together(kind: str) -> None:
    """Cut, joined and unsqueezed, as exporters write them."""
    arrays = recurrent_weights(kind, FEATURES, UNITS, 2)
    gates = GATES[kind] * UNITS
    stored = {
        "first": arrays["W"][0], "second": arrays["W"][1].T.copy(),
        "wide": np.concatenate([arrays["R"], arrays["R"] * 2], -1),
        "b": arrays["B"].reshape(4, gates), "axis": np.array([0]), "from": np.array([0]),
        "to": np.array([UNITS]), "last": np.array([2]), "shape": np.array([2, -1]),
    }  # fmt: skip
    nodes = [
        node("Unsqueeze", ["first", "axis"], ["w0"]),
        node("Transpose", ["second"], ["turned"], perm=[1, 0]),
        node("Unsqueeze", ["turned", "axis"], ["w1"]),
        node("Concat", ["w0", "w1"], ["W"], axis=0),
        node("Slice", ["wide", "from", "to", "last"], ["R"]),
        node("Reshape", ["b", "shape"], ["B"]),
        node(
            kind, ["X", "W", "R", "B"], OUTPUTS[kind], hidden_size=UNITS, direction="bidirectional"
        ),
    ]
    inputs = {"X": ["steps", "batch", FEATURES]}
    spec = agree(graph_of(nodes, inputs, OUTPUTS[kind], stored), {"X": X}, {"X": X[:1, :1]})
    sources = {entry["source"] for entry in spec.provenance["tensors"]}
    assert {"first", "second", "wide", "b"} <= sources


def test_weights_that_two_operators_share_are_one_layer() -> None:
    arrays = recurrent_weights("LSTM", FEATURES, UNITS)
    nodes = [
        node("LSTM", ["X", "W", "R", "B"], ["", "h", "c"], name="a", hidden_size=UNITS),
        node("LSTM", ["X", "W", "R", "B", "", "h", "c"], ["Y"], name="b", hidden_size=UNITS),
    ]
    spec = agree(graph_of(nodes, {"X": ["steps", "batch", FEATURES]}, ["Y"], arrays), {"X": X})
    assert [layer.kind for layer in spec.layers].count("lstm") == 1
    assert [edge.layer for edge in spec.edges].count(spec.layers[0].name) == 2


def test_units_of_old_files_are_those_of_the_weights() -> None:
    model = operator("LSTM", opset=7)
    attribute = next(a for a in model.graph.node[0].attribute if a.name == "hidden_size")
    model.graph.node[0].attribute.remove(attribute)
    old, new = nc.from_onnx(model), nc.from_onnx(operator("LSTM", opset=7))
    np.testing.assert_array_equal(predict(old, {"X": X})["Y"], predict(new, {"X": X})["Y"])


def test_outputs_that_nothing_reads_are_not_computed() -> None:
    arrays = recurrent_weights("LSTM", FEATURES, UNITS)
    inputs = {"X": ["steps", "batch", FEATURES]}
    for names in (["", "", "Y_c"], ["", "Y_h"], ["Y"]):
        call = node("LSTM", ["X", "W", "R", "B"], names, hidden_size=UNITS)
        spec = agree(graph_of([call], inputs, [n for n in names if n], arrays), {"X": X})
        assert spec.outputs == (names[-1],)


@pytest.mark.parametrize("given", [("h0", ""), ("", "c0")])
def test_a_state_that_is_not_given_begins_with_zeros(given: tuple[str, str]) -> None:
    call = node("LSTM", ["X", "W", "R", "B", "", *given], ["Y", "Yh", "Yc"], hidden_size=UNITS)
    state = "".join(given)
    inputs = {"X": ["steps", "batch", FEATURES], state: [1, "batch", UNITS]}
    model = graph_of([call], inputs, call.output, recurrent_weights("LSTM", FEATURES, UNITS))
    rng = np.random.default_rng(4)
    agree(model, {"X": draw(rng, 5, 2, FEATURES), state: draw(rng, 1, 2, UNITS)})


def changed(**attributes: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        call = model.graph.node[0]
        for name, new in attributes.items():
            for old in [a for a in call.attribute if a.name == name]:
                call.attribute.remove(old)
            call.attribute.append(helper.make_attribute(name, new))

    return change


def reads(*names: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        del model.graph.node[0].input[:]
        model.graph.node[0].input.extend(names)

    return change


def array_as_input(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        model.graph.input.append(value(name, tensor.dims))
        model.graph.initializer.remove(tensor)

    return change


REFUSED: list[tuple[Callable[[Any], None], str]] = [
    (changed(direction="sideways"), "direction: expected one of forward, reverse, bidirectional, got 'sideways'"),
    (changed(layout=2), "layout: expected 0 or 1, got 2"),
    (changed(hidden_size=5), r"W: expected shape \(1, 20, 3\), got \(1, 16, 3\)"),
    (changed(direction="bidirectional"), r"W: expected shape \(2, 16, 3\), got \(1, 16, 3\)"),
    (changed(activations=["Sigmoid"]), "activations: expected 3 names, got 1"),
    (changed(activations=["Sigmoid", "Tanh", "Swish"]), "activation 'Swish' is not supported, only relu, tanh"),
    (changed(activations=["Sigmoid", "ThresholdedRelu", "Tanh"]), "activation 'ThresholdedRelu': the file does not state theta"),
    (changed(activations=["Affine", "Tanh", "Tanh"], activation_alpha=[0.5]), "activation 'Affine': the file does not state beta"),
    (changed(activations=["Sigmoid", "ScaledTanh", "Tanh"]), "activation 'ScaledTanh': the file does not state alpha"),
    (changed(projection_size=2), "argument projection_size=2 is not supported"),
    (array_as_input("W"), "W: is computed from an input, which is supported for constants only"),
    (array_as_input("B"), "B: is computed from an input, which is supported for constants only"),
    (reads("X", "W"), "missing a required argument: 'R'"),
    (reads("X", "W", "R", "B", "", "h0", "c0", "B"), r"P: expected shape \(1, 12\), got \(1, 32\)"),
    (reads("X", "W", "R", "B", "", "h0", "c0", "", "X"), "too many arguments"),
    (reads("X", "W", "R", "nowhere"), "reads 'nowhere', which no node makes"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_is_refused(change: Callable[[Any], None], message: str) -> None:
    model = operator("LSTM", initial=True)
    change(model)
    with pytest.raises(UnsupportedError, match=message) as caught:
        nc.from_onnx(model)
    assert "LSTM rnn: " in str(caught.value)


@pytest.mark.parametrize("name", ["h0", "c0"])
def test_a_state_of_another_width_is_refused(name: str) -> None:
    """PyTorch's newer exporter writes an LSTM with proj_size so, without some of its weights."""
    model = operator("LSTM", initial=True)
    (tensor,) = [t for t in model.graph.input if t.name == name]
    tensor.CopyFrom(value(name, [1, "batch", 2]))
    message = f"LSTM rnn: initial_{name[0]}: has 2 units, the layer 4; .*proj_size"
    with pytest.raises(UnsupportedError, match=message):
        nc.from_onnx(model)
    model.graph.input.remove(tensor)
    zeros = np.zeros((1, 1, 2), "float32")
    model.graph.initializer.append(numpy_helper.from_array(zeros, name))
    with pytest.raises(UnsupportedError, match=message):
        nc.from_onnx(model)
