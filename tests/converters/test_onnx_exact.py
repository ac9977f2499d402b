"""Graphs in which a shortcut of the importer would change numbers, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from npylstm_converters import from_onnx
from onnx import TensorProto
from onnx_graphs import agree, body, draw, graph_of, node, predict, recurrent_weights, value

from npylstm import NpylstmError, ShapeError, UnsupportedError

RNG = np.random.default_rng(3)


def test_a_triangle_of_ones_is_not_all_ones() -> None:
    """A mask for attention: its product with the scores is not the scores."""
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "at"], ["square"]),
        node("Expand", ["one", "square"], ["ones"]),
        node("Trilu", ["ones"], ["mask"], upper=0),
        node("Mul", ["x", "mask"], ["y"]),
    ]
    constants = {"at": np.array([1, 2]), "one": np.ones((1, 1), np.float32)}
    model = graph_of(nodes, {"x": ["N", "T", "T"]}, ["y"], constants)
    agree(model, {"x": draw(RNG, 2, 4, 4)}, {"x": draw(RNG, 1, 1, 1)})


@pytest.mark.parametrize("divisor", ["two", "more"])
def test_sizes_as_floats_are_divided_as_floats(divisor: str) -> None:
    nodes = [
        node("Shape", ["x"], ["sizes"], start=1, end=2),
        node("Cast", ["sizes"], ["steps"], to=TensorProto.FLOAT),
        node("Add", ["sizes", "one"], ["next"]),
        node("Cast", ["next"], ["more"], to=TensorProto.FLOAT),
        node("Div", ["steps", divisor], ["part"]),
        node("Add", ["x", "part"], ["y"]),
    ]
    constants = {"one": np.array(1), "two": np.float32(2)}
    model = graph_of(nodes, {"x": ["N", "T", 2]}, ["y"], constants)
    agree(model, {"x": draw(RNG, 2, 3, 2)}, {"x": draw(RNG, 1, 1, 2)})


def test_the_outputs_of_constants_keep_their_places() -> None:
    split = node("Split", ["a", "sizes"], ["", "b", "c"], axis=1)
    constants = {"a": np.arange(6, dtype=np.float32)[None], "sizes": np.array([2, 2, 2])}
    model = graph_of([split, node("Add", ["x", "b"], ["y"])], {"x": ["batch", 2]}, ["y"], constants)
    made = predict(from_onnx(model), {"x": np.zeros((1, 2), np.float32)})
    assert made["y"].tolist() == [[2, 3]]  # onnxruntime refuses an output without a name


A = draw(RNG, 2, 3, 4)
OF_CONSTANTS = {
    "softmax": (node("Softmax", ["a"], ["c"], axis=1), {"a": A}, 11),
    "log of softmax": (node("LogSoftmax", ["a"], ["c"], axis=1), {"a": A}, 11),
    "norm": (node("LpNormalization", ["a"], ["c"], p=1), {"a": A}, 17),
    "GRU": (node("GRU", ["a", "W", "R", "B"], ["", "c"], hidden_size=4, clip=0.2),
            {"a": A, **recurrent_weights("GRU", 4, 4)}, 17),
    "LSTM": (node("LSTM", ["a", "W", "R", "B"], ["", "c"], hidden_size=4, input_forget=1),
             {"a": A, **recurrent_weights("LSTM", 4, 4)}, 17),
    "slice": (node("Slice", ["a", "start", "end", "axis", "step"], ["c"]),
              {"a": A, "start": np.array([-6]), "end": np.array([-9]), "axis": np.array([2]),
               "step": np.array([-1])}, 17),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_CONSTANTS)
def test_operators_on_constants(name: str) -> None:
    call, constants, opset = OF_CONSTANTS[name]
    model = graph_of(
        [call, node("Add", ["x", "c"], ["y"])], {"x": ["N", 1, 1, 1]}, ["y"], constants, opset
    )
    agree(model, {"x": draw(RNG, 2, 1, 1, 1)})


def test_only_the_batch_takes_the_place_of_its_exported_size() -> None:
    """The file fixes a batch of two; two copies of one step are no batch."""
    nodes = [
        node("Slice", ["x", "one", "two", "zero"], ["step"]),
        node("Expand", ["step", "sizes"], ["copies"]),
        node("ReduceSum", ["copies", "zero"], ["y"], keepdims=0),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
                 "sizes": np.array([2, 2, 3])}  # fmt: skip
    with pytest.raises(UnsupportedError):
        from_onnx(graph_of(nodes, {"x": ["T", 2, 3]}, ["y"], constants))
    model = graph_of(nodes[1:2], {"step": [2, "T", 3]}, ["copies"], constants)
    spec = agree(model, {"step": draw(RNG, 2, 2, 3)})
    with pytest.raises(NpylstmError, match=r"expected \(batch, 2, 3\)"):
        predict(spec, {"step": draw(RNG, 2, 1, 3)})  # onnxruntime makes two steps of one


def test_only_the_batch_is_a_block_of_its_exported_size() -> None:
    at = np.stack(np.meshgrid([0, 1], [0, 1], indexing="ij"), -1)
    nodes = [
        node("Slice", ["x", "zero", "two", "one"], ["part"]),
        node("Neg", ["part"], ["new"]),
        node("ScatterND", ["x", "at", "new"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "at": at}
    model = graph_of(nodes, {"x": [2, "T", 3]}, ["y"], constants)
    agree(model, {"x": draw(RNG, 2, 4, 3)}, {"x": draw(RNG, 2, 3, 3)})


def test_the_lowest_float_is_a_bound_of_infinity() -> None:
    """Exporters write it for no bound; it makes a softmax of masked entries a number."""
    nodes = [node("Clip", ["x", "low"], ["c"]), node("Softmax", ["c"], ["y"])]
    low = {"low": np.array(np.finfo(np.float32).min)}
    model = graph_of(nodes, {"x": ["N", 2]}, ["y"], low)
    agree(model, {"x": np.array([[-np.inf, -np.inf], [-np.inf, 1]], np.float32)})


def test_a_state_that_each_step_cuts_off() -> None:
    step = [
        node("Gather", ["x", "i"], ["xt"], axis=0),
        node("Cast", ["h"], ["whole"], to=TensorProto.INT32),
        node("Cast", ["whole"], ["new"], to=TensorProto.FLOAT),
        node("Add", ["xt", "h"], ["sum"]),
    ]
    first = [node("Gather", ["x", "first"], ["one_step"], axis=0),
             node("Mul", ["one_step", "nine"], ["h0"])]  # fmt: skip
    going = value("going", [], TensorProto.BOOL)
    inner = body(
        [*step, node("Identity", ["going"], ["goes"])],
        [value("i", [], TensorProto.INT64), going, value("h", None)],
        [value("goes", [], TensorProto.BOOL), value("new", None), value("sum", None)],
    )
    nodes = [
        node("Shape", ["x"], ["steps"], start=0, end=1), *first,
        node("Loop", ["steps", "", "h0"], ["last", "y"], body=inner),
    ]  # fmt: skip
    constants = {"first": np.array(0), "nine": np.float32(9)}
    model = graph_of(nodes, {"x": ["T", "N", 2]}, ["last", "y"], constants)
    agree(model, {"x": draw(RNG, 3, 2, 2)})


@pytest.mark.parametrize(("first", "last"), [(None, -3), (-3, -1)])
def test_bounds_of_a_slice_that_are_computed_from_the_steps(first: int | None, last: int) -> None:
    nodes = [
        node("Shape", ["x"], ["steps"], start=1, end=2),
        node("Add", ["steps", "last"], ["end"]),
        node("Add", ["steps", "first"], ["begin"]),
        node("Slice", ["x", "begin" if first else "zero", "end", "one"], ["part"]),
        node("ReduceSum", ["part", "one"], ["y"], keepdims=0),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "first": np.array([first or 0]),
                 "last": np.array([last])}  # fmt: skip
    model = graph_of(nodes, {"x": ["N", "T", 2]}, ["y"], constants)
    spec = agree(model, {"x": draw(RNG, 2, 5, 2)}, {"x": draw(RNG, 2, 4, 2)})
    # With two steps the bound is -1, which ONNX counts from the end again: no model means that.
    with pytest.raises(NpylstmError, match="expected at least 3 entries"):
        predict(spec, {"x": draw(RNG, 2, 2, 2)})


def test_casts_to_narrow_integers_are_refused() -> None:
    inputs = [value("x", ["N", 2], TensorProto.INT64)]
    model = graph_of([node("Cast", ["x"], ["y"], to=TensorProto.UINT8)], inputs, ["y"])
    with pytest.raises(UnsupportedError, match="to UINT8: numbers that do not fit"):
        from_onnx(model)


def test_roots_of_integers_are_cut_off() -> None:
    inputs = [value("x", ["N", 2], TensorProto.INT64)]
    model = graph_of(
        [node("Pow", ["x", "half"], ["y"])], inputs, [value("y", None, TensorProto.INT64)],
        {"half": np.array(0.5, np.float32)},
    )  # fmt: skip
    agree(model, {"x": np.array([[2, 9], [15, 1]])})


ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners",
               "asymmetric")  # fmt: skip


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_nearest_entry_is_that_of_float32(rounding: str, coordinates: str) -> None:
    """Here rounding in float64, or no tolerance for halves, gives other entries."""
    for entries, factor in ((6, 2.3), (7, 1.7), (7, 0.6), (6, 1.1), (10, 0.7), (7, 4), (14, 4),
                            (18, 21), (18, 39), (14, 31), (7, 1)):  # fmt: skip
        by_size = isinstance(factor, int)
        scales = np.array([1, 1, factor], np.float32)
        to = {"to": np.array([2, 2, factor]) if by_size else scales}
        names = ["x", "", "", "to"] if by_size else ["x", "", "to"]
        resize = node("Resize", names, ["y"], mode="nearest", nearest_mode=rounding,
                      coordinate_transformation_mode=coordinates)  # fmt: skip
        model = graph_of([resize], {"x": [2, 2, entries]}, ["y"], to)
        agree(model, {"x": draw(RNG, 2, 2, entries)}, atol=0)


@pytest.mark.parametrize("scale", [0.6, 0.3, 1.7, 2])
def test_the_nearest_entry_of_the_first_resize(scale: float) -> None:
    scales = {"scales": np.array([1, 1, scale], np.float32)}
    model = graph_of([node("Resize", ["x", "scales"], ["y"])], {"x": [2, 2, 7]}, ["y"], scales, 10)
    agree(model, {"x": draw(RNG, 2, 2, 7)}, atol=0)


def without_entries(operator: str, *inputs: str, **attributes: object) -> Any:
    """Return a graph of all steps but the last three: none if there are three."""
    nodes = [node("Slice", ["x", "zero", "end", "one"], ["part"]),
             node(operator, ["part", *inputs], ["y"], **attributes)]  # fmt: skip
    constants = {"zero": np.array([0]), "end": np.array([-3]), "one": np.array([1])}  # fmt: skip
    return graph_of(nodes, {"x": ["N", "T", 4]}, ["y"], constants)


@pytest.mark.parametrize(
    "model",
    [
        without_entries("Softmax", axis=1),
        without_entries("LogSoftmax", axis=1),
        without_entries("ReduceSum", "one"),
    ],
)
def test_slices_without_entries(model: Any) -> None:
    agree(model, {"x": draw(RNG, 2, 5, 4)}, {"x": draw(RNG, 2, 3, 4)})


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin", "ReduceLogSumExp", "ArgMax"])
def test_the_largest_of_no_entries_is_an_error(operator: str) -> None:
    along = {"axis": 1} if operator == "ArgMax" else {"axes": [1]}
    spec = from_onnx(without_entries(operator, **along))
    with pytest.raises(ShapeError, match=r"along axis 1 of \(2, 0, 4\): expected at least one"):
        predict(spec, {"x": draw(RNG, 2, 3, 4)})


@pytest.mark.parametrize("kind", ["embedding", "take"])
def test_indices_of_a_table_count_from_the_end(kind: str) -> None:
    """Ids that come as they are from an input are those of a vocabulary."""
    at = node("Sub", ["x", "back"], ["at"]) if kind == "take" else node("Identity", ["x"], ["at"])
    inputs = [value("x", ["N", "T"], TensorProto.INT64)]
    constants = {"back": np.array(3), "table": draw(RNG, 7, 3)}
    model = graph_of([at, node("Gather", ["table", "at"], ["y"])], inputs, ["y"], constants)
    spec = agree(model, {"x": np.array([[0, 2, 6], [1, 4, 3]])})
    assert kind in [layer.kind for layer in spec.layers]


def test_a_reshape_that_runs_for_all_sizes_is_preferred_to_a_batch() -> None:
    """With a batch, (N, T, 2) becomes (N, 4) for T = 2 only."""
    reshape = node("Reshape", ["x", "to"], ["y"])
    model = graph_of([reshape], {"x": ["N", "T", 2]}, ["y"], {"to": np.array([-1, 4])})
    spec = agree(model, {"x": draw(RNG, 2, 3, 2)}, {"x": draw(RNG, 1, 4, 2)})
    assert spec.inputs[0].shape == ("N", "T", 2)


def test_a_dropout_of_old_versions_has_its_ratio_as_an_attribute() -> None:
    model = graph_of([node("Dropout", ["x"], ["y"], ratio=0.5)], {"x": ["N", 3]}, ["y"], opset=7)
    agree(model, {"x": draw(RNG, 2, 3)}, atol=0)


def test_a_reshape_that_relates_sizes_keeps_the_batch() -> None:
    """It runs for all even numbers of steps."""
    nodes = [
        node("Shape", ["x"], ["steps"], start=2, end=3),
        node("MaxPool", ["x"], ["half"], kernel_shape=[2], strides=[2]),
        node("Concat", ["last", "steps"], ["sizes"], axis=0),
        node("Reshape", ["half", "sizes"], ["y"]),
    ]
    model = graph_of(nodes, {"x": ["N", 2, "T"]}, ["y"], {"last": np.array([-1])})
    spec = agree(model, {"x": draw(RNG, 2, 2, 6)}, {"x": draw(RNG, 1, 2, 4)})
    assert spec.inputs[0].shape == ("batch", 2, "T")
