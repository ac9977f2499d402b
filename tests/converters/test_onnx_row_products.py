"""Axes that a graph merges to multiply rows stay apart."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from npylstm_converters.onnx.row_products import keep_axes  # noqa: E402
from onnx_graphs import agree, draw, graph_of, node  # noqa: E402

from npylstm.graph.builder import GraphBuilder  # noqa: E402
from npylstm.ops.arithmetic import Arithmetic, Constant  # noqa: E402
from npylstm.ops.dense import Dense  # noqa: E402
from npylstm.ops.shaping import Reshape  # noqa: E402
from npylstm.spec import TensorSpec  # noqa: E402

F = 3


def in_rows(count: int) -> Any:
    """Return products one after the other, each with the axes merged before and restored after."""
    rng = np.random.default_rng(0)
    nodes, arrays, last = [node("Shape", ["x"], ["sizes"])], {}, "x"
    for k in range(count):
        arrays |= {f"W{k}": draw(rng, F, F), f"b{k}": draw(rng, F)}
        nodes += [
            node("Reshape", [last, "rows"], [f"r{k}"]),
            node("MatMul", [f"r{k}", f"W{k}"], [f"p{k}"]),
            node("Add", [f"b{k}", f"p{k}"], [f"a{k}"]),
            node("Tanh", [f"a{k}"], [f"t{k}"]),
            node("Reshape", [f"t{k}", "sizes"], [f"y{k}"]),
        ]
        last = f"y{k}"
    arrays["rows"] = np.array([-1, F])
    return graph_of(nodes, {"x": ["batch", "steps", F]}, [last], arrays)


def test_products_one_after_the_other_keep_the_steps() -> None:
    x = draw(np.random.default_rng(1), 2, 5, F)
    spec = agree(in_rows(3), {"x": x})
    kinds = [layer.kind for layer in spec.layers]
    assert kinds == ["dense", "activation"] * 3


def test_the_work_is_linear_in_the_number_of_products() -> None:
    def calls(count: int) -> int:
        builder, last = GraphBuilder([TensorSpec("x", ("batch", "steps", F))]), "x"
        for _ in range(count):
            (row,) = builder.add("merge", Reshape((-1, F)), [last])
            (made,) = builder.add("dense", Dense(F, F, use_bias=False), [row], {"W": np.eye(F)})
            (last,) = builder.add("restore", Reshape(((1, 0), (1, 1), F)), [made, "x"])
        counted = 0

        def count_call(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count_call)
        try:
            kept = keep_axes(builder, [last])
        finally:
            sys.setprofile(None)
        assert len(kept) == count
        return counted

    assert calls(400) < 5 * calls(100)


@pytest.mark.parametrize(("after_batch", "kept"), [(False, True), (True, False)])
def test_a_vector_that_broadcasts_along_the_rows_is_no_bias(after_batch: bool, kept: bool) -> None:
    """With three rows it would be added to the rows, not to the features."""
    builder = GraphBuilder([TensorSpec("x", (1, F, F))])
    (row,) = builder.add("merge", Reshape((F, F)), ["x"])
    (vector,) = builder.add("vector", Constant((F,)), [], {"value": np.arange(F)})
    (made,) = builder.add("add", Arithmetic("add", after_batch=after_batch), [row, vector])
    (last,) = builder.add("restore", Reshape((1, F, F)), [made])
    assert bool(keep_axes(builder, [last])) is kept
