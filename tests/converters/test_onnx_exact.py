"""Graphs in which a shortcut of the importer would change numbers, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx_graphs import agree, draw, graph_of, node

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
