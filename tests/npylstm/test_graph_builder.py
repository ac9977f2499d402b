"""The graph builder: names, shapes, shared weights, equal sizes, and what nobody reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npylstm import FormatError, Model, ModelSpec
from npylstm.errors import MixedSamplesError
from npylstm.graph.builder import GraphBuilder
from npylstm.graph.parts import TensorSpec
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.ops.indexing import Select
from npylstm.ops.pointwise import Rescaling
from npylstm.ops.products import MatMul

RNG = np.random.default_rng(3)
X = TensorSpec("x", ("batch", "steps", 3))


def weights(operation: Any) -> dict[str, Any]:
    return {k: RNG.normal(size=shape) for k, shape in operation.weight_shapes().items()}


def finished(builder: GraphBuilder, *outputs: str) -> ModelSpec:
    names = builder.simplify(builder.finish(outputs))
    return ModelSpec(tuple(builder.layers.values()), tuple(builder.edges), builder.inputs, names)


def test_names_are_unique_and_have_no_slash() -> None:
    builder = GraphBuilder([X])
    builder.reserve(["half_2"])
    assert builder.add("half", Rescaling(0.5), ["x"]) == ("half",)
    assert builder.add("half", Rescaling(0.5), ["half"]) == ("half_3",)
    assert builder.add("a/b", Rescaling(0.5), ["x"]) == ("a_b",)
    assert builder.add("x", Rescaling(0.5), ["x"]) == ("x_2",)
    assert builder.add("case", Rescaling(0.5), ["x"]) == ("case_2",)  # a key of the file


def test_equal_weights_are_one_layer() -> None:
    builder, dense = GraphBuilder([X]), Dense(3, 3)
    arrays = weights(dense)
    assert builder.add("fc", dense, ["x"], arrays, share=(1,)) == ("fc",)
    assert builder.add("fc", dense, ["fc"], arrays, share=(1,)) == ("fc#2",)
    assert builder.add("fc", dense, ["x"], arrays, share=(2,)) == ("fc_2",)
    assert builder.add("fc", Dense(3, 3, use_bias=False), ["x"], arrays, share=(1,)) == ("fc_3",)
    assert len(builder.layers) == 3
    assert builder.layers["fc"].weights["kernel"].dtype == np.float32


def test_free_sizes_become_equal_where_they_must() -> None:
    y = TensorSpec("y", ("batch", "steps_2", 3))
    builder = GraphBuilder([X, y])
    (doubled,) = builder.add("doubled", Rescaling(2.0), ["y"])
    builder.add("sum", Arithmetic("add"), ["x", doubled])
    assert [t.shape for t in builder.inputs] == [("batch", "steps", 3)] * 2
    assert builder.shapes[doubled] == builder.shapes["sum"] == ("batch", "steps", 3)
    builder = GraphBuilder([X, TensorSpec("y", ("batch", 7, 3))])
    builder.add("sum", Arithmetic("add"), ["x", "y"])
    assert builder.inputs[0].shape == ("batch", 7, 3)
    builder = GraphBuilder([X, TensorSpec("y", ("batch", "steps", 4))])
    with pytest.raises(FormatError, match="do not fit together"):
        builder.add("sum", Arithmetic("add"), ["x", "y"])


def test_what_mixes_samples_is_refused() -> None:
    builder = GraphBuilder([X])
    with pytest.raises(MixedSamplesError, match="along axis 0"):
        builder.add("mean", Reduce("mean", (0,)), ["x"])
    flat = GraphBuilder([TensorSpec("x", ("batch", 3)), TensorSpec("y", (3, "batch"))])
    with pytest.raises(MixedSamplesError, match="samples of the batch would depend"):
        flat.add("pairs", MatMul(), ["x", "y"])
    assert not builder.layers
    assert not builder.edges


def test_only_what_is_read_stays() -> None:
    builder, lstm = GraphBuilder([X]), LSTM(3, 4, return_sequences=True, return_state=True)
    main, h, _ = builder.add("lstm", lstm, ["x"], weights(lstm))
    (last,) = builder.add("last", Select(1, -1), [main])
    builder.add("unread", Rescaling(2.0), [h])
    builder.add("constant", Constant((2,)), [], {"value": np.ones(2)})
    spec = finished(builder, last)
    assert [layer.name for layer in spec.layers] == ["lstm"]
    assert spec["lstm"].config["return_sequences"] is spec["lstm"].config["return_state"] is False
    assert spec.outputs == ("lstm",)
    assert Model(spec, "numpy").predict(np.zeros((2, 5, 3))).shape == (2, 4)


def test_states_of_every_call_are_dropped_together() -> None:
    forward = LSTM(3, 2, return_sequences=True, return_state=True)
    backward = LSTM(3, 2, return_sequences=True, return_state=True, go_backwards=True)
    both = Bidirectional(forward, backward)
    builder, arrays = GraphBuilder([X, TensorSpec("y", ("batch", "steps", 3))]), weights(both)
    first = builder.add("both", both, ["x"], arrays, share=(1,))
    second = builder.add("both", both, ["y"], arrays, share=(1,))
    spec = finished(builder, first[0], second[0])
    assert [edge.outputs for edge in spec.edges] == [("both",), ("both#2",)]


def test_every_output_is_a_tensor_of_its_own() -> None:
    builder = GraphBuilder([X])
    (y,) = builder.add("half", Rescaling(0.5), ["x"])
    assert builder.finish([y, y, "x"]) == ("half", "identity", "identity_2")
