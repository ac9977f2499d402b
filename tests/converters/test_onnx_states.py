"""States that an ONNX graph takes as inputs and returns as outputs: pairs, and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from backends import BACKENDS
from onnx_graphs import (
    ATOL,
    Array,
    agree,
    body,
    draw,
    graph_of,
    node,
    predict,
    recurrent_weights,
    run_onnxruntime,
    value,
)

import npylstm
from npylstm import ShapeError, UnsupportedError

F, U = 3, 4
Model = Any
X: Mapping[str, Sequence[int | str]] = {"x": ["steps", "batch", F]}


def weights(*layers: tuple[str, str, int, int]) -> dict[str, Array]:
    """Return the arrays of layers: prefix, kind, features, directions."""
    made: dict[str, Array] = {}
    for k, (prefix, kind, features, directions) in enumerate(layers):
        made |= recurrent_weights(kind, features, U, directions, seed=k, prefix=prefix)
    return made


def squeezed(source: str, target: str) -> Any:
    return node("Squeeze", [source, "one"], [target])


ONE = {"one": np.array([1])}


def lstm_states() -> Model:
    """Return an LSTM whose states are inputs and outputs."""
    call = node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y4", "hn", "cn"], hidden_size=U)
    inputs = {**X, "h": [1, "batch", U], "c": [1, "batch", U]}
    arrays = weights(("", "LSTM", F, 1)) | ONE
    return graph_of([call, squeezed("y4", "y")], inputs, ["y", "hn", "cn"], arrays)


def gru_state_by_sample() -> Model:
    """Return a GRU with its state as (batch, units)."""
    zero = {"zero": np.array([0])}
    nodes = [
        node("Unsqueeze", ["h", "zero"], ["h0"]),
        node(
            "GRU",
            ["x", "W", "R", "B", "", "h0"],
            ["y4", "h1"],
            hidden_size=U,
            linear_before_reset=1,
        ),
        node("Squeeze", ["h1", "zero"], ["hn"]),
        squeezed("y4", "y"),
    ]
    return graph_of(
        nodes, {**X, "h": ["batch", U]}, ["y", "hn"], weights(("", "GRU", F, 1)) | ONE | zero
    )


def stacked_h_and_c() -> Model:
    """Return an LSTM whose states are one tensor, (2, batch, units)."""
    nodes = [
        node("Split", ["state", "sizes"], ["h", "c"], axis=0),
        node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y4", "h1", "c1"], hidden_size=U),
        node("Concat", ["h1", "c1"], ["state_out"], axis=0),
        squeezed("y4", "y"),
    ]
    arrays = weights(("", "LSTM", F, 1)) | ONE | {"sizes": np.array([1, 1])}
    return graph_of(nodes, {**X, "state": [2, "batch", U]}, ["y", "state_out"], arrays)


def layers_of(directions: int) -> Callable[[], Model]:
    """Return a function that makes two layers; h and c have those of all layers and directions."""
    way = "bidirectional" if directions == 2 else "forward"

    def make() -> Model:
        nodes = [
            node("Split", ["h", "sizes"], ["h_a", "h_b"], axis=0),
            node("Split", ["c", "sizes"], ["c_a", "c_b"], axis=0),
            node("LSTM", ["x", "aW", "aR", "aB", "", "h_a", "c_a"], ["a4", "a_h", "a_c"], hidden_size=U, direction=way),
            node("Transpose", ["a4"], ["a4t"], perm=[0, 2, 1, 3]),
            node("Reshape", ["a4t", "shape"], ["a"]),
            node("LSTM", ["a", "bW", "bR", "bB", "", "h_b", "c_b"], ["b4", "b_h", "b_c"], hidden_size=U, direction=way),
            node("Concat", ["a_h", "b_h"], ["hn"], axis=0),
            node("Concat", ["a_c", "b_c"], ["cn"], axis=0),
            node("Transpose", ["b4"], ["b4t"], perm=[0, 2, 1, 3]),
            node("Reshape", ["b4t", "shape"], ["y"]),
        ]  # fmt: skip
        arrays = weights(("a", "LSTM", F, directions), ("b", "LSTM", U * directions, directions))
        arrays |= {"sizes": np.array([directions] * 2), "shape": np.array([0, 0, -1])}
        state = [2 * directions, "batch", U]
        return graph_of(nodes, {**X, "h": state, "c": state}, ["y", "hn", "cn"], arrays)

    return make


PAIRS: Mapping[str, tuple[Callable[[], Model], tuple[tuple[str, str], ...]]] = {
    "lstm": (lstm_states, (("h", "hn"), ("c", "cn"))),
    "gru": (gru_state_by_sample, (("h", "hn"),)),
    "stacked": (stacked_h_and_c, (("state", "state_out"),)),
    "layers": (layers_of(1), (("h", "hn"), ("c", "cn"))),
    "directions": (layers_of(2), (("h", "hn"), ("c", "cn"))),
}
STREAMS = [*PAIRS]


def shape_of(tensor: Any, batch: int) -> tuple[int, ...]:
    return tuple(batch if d == "batch" else d for d in tensor.shape)


def drawn(spec: Any, steps: int, batch: int, seed: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    sizes = {"steps": steps, "batch": batch}
    return {t.name: draw(rng, *(sizes.get(str(d), d) for d in t.shape)) for t in spec.inputs}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_found_and_kept_in_the_file(name: str, tmp_path: Path) -> None:
    make, pairs = PAIRS[name]
    spec = nc.from_onnx(make())
    assert spec.state_pairs == pairs
    npylstm.save(spec, tmp_path / "m.npz")
    again = npylstm.load(tmp_path / "m.npz").spec
    assert again.state_pairs == pairs
    assert again == spec


@pytest.mark.parametrize("name", PAIRS)
def test_predict_takes_and_returns_states_as_the_graph_does(name: str) -> None:
    model = PAIRS[name][0]()
    spec = nc.from_onnx(model)
    agree(model, drawn(spec, 7, 2), drawn(spec, 1, 1))
    with pytest.raises(ShapeError, match=spec.inputs[-1].name):
        npylstm.Model(spec).predict({"x": np.zeros((2, 1, F), "float32")})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_session_carries_states_as_the_hand_does(name: str, backend: str) -> None:
    make, pairs = PAIRS[name]
    model = make()
    spec = nc.from_onnx(model)
    session = npylstm.Model(spec, backend).session(2)
    states = {t.name: np.zeros(shape_of(t, 2), "float32") for t in spec.inputs if t.name != "x"}
    rng = np.random.default_rng(1)
    for steps in (1, 3, 1, 8):
        x = draw(rng, steps, 2, F)
        expected = run_onnxruntime(model, {"x": x, **states})
        made = session.push({"x": x})
        assert [*made] == [*expected]
        for output, array in expected.items():
            np.testing.assert_allclose(made[output], array, rtol=0, atol=ATOL)
        states = {name: expected[output] for name, output in pairs}


def test_chunks_of_any_length_give_the_same_stream() -> None:
    spec = nc.from_onnx(layers_of(1)())
    model = npylstm.Model(spec)
    x = drawn(spec, 12, 2)["x"]
    whole = model.session(2).push({"x": x})
    session = model.session(2)
    made = [session.push({"x": part}) for part in np.split(x, [1, 5, 6])]
    np.testing.assert_array_equal(np.concatenate([m["y"] for m in made]), whole["y"])
    np.testing.assert_array_equal(made[-1]["cn"], whole["cn"])


def test_states_are_set_and_reset_by_hand() -> None:
    spec = nc.from_onnx(stacked_h_and_c())
    session = npylstm.Model(spec).session(2)
    feeds = drawn(spec, 5, 2)
    ((name, state),) = session.state.items()
    assert {key: array.shape for key, array in state.items()} == {"h": (2, U), "c": (2, U)}
    session.state = {name: dict(zip("hc", feeds["state"], strict=True))}
    made = session.push({"x": feeds["x"]})
    expected = predict(spec, feeds)
    np.testing.assert_array_equal(made["y"], expected["y"])
    np.testing.assert_array_equal(np.stack([*session.state[name].values()]), expected["state_out"])
    session.reset()
    zero = predict(spec, {**feeds, "state": np.zeros_like(feeds["state"])})
    np.testing.assert_array_equal(session.push({"x": feeds["x"]})["y"], zero["y"])


def test_a_session_takes_no_states_as_inputs() -> None:
    spec = nc.from_onnx(lstm_states())
    with pytest.raises(ShapeError, match="h"):
        npylstm.Model(spec).session(2).push(drawn(spec, 5, 2))


def window() -> Model:
    """Return a graph that takes windows, as detectors of speech do: no axis of steps."""
    arrays = weights(("", "LSTM", 5, 1)) | {
        "K": draw(np.random.default_rng(5), 5, 1, 8), "zero": np.array([0]), "axis": np.array([1]),
        "O": draw(np.random.default_rng(6), U, 1), "sizes": np.array([1, 1]),
    }  # fmt: skip
    nodes = [
        node("Unsqueeze", ["audio", "axis"], ["channels"]),
        node("Conv", ["channels", "K"], ["frames"], strides=[8]),
        node("Relu", ["frames"], ["positive"]),
        node("Transpose", ["positive"], ["steps"], perm=[2, 0, 1]),
        node("Split", ["state", "sizes"], ["h", "c"], axis=0),
        node("LSTM", ["steps", "W", "R", "B", "", "h", "c"], ["", "hn", "cn"], hidden_size=U),
        node("Concat", ["hn", "cn"], ["state_out"], axis=0),
        node("Squeeze", ["hn", "zero"], ["last"]),
        node("MatMul", ["last", "O"], ["score"]),
        node("Sigmoid", ["score"], ["speech"]),
    ]
    inputs = {"audio": ["batch", 32], "state": [2, "batch", U]}
    return graph_of(nodes, inputs, ["speech", "state_out"], arrays)


def one_step() -> Model:
    """Return a graph that is called once for each step: (batch, features)."""
    arrays = weights(("", "GRU", F, 1)) | {"zero": np.array([0])}
    nodes = [
        node("Unsqueeze", ["obs", "zero"], ["x"]),
        node("GRU", ["x", "W", "R", "B", "", "h_in"], ["", "h_out"], hidden_size=U),
        node("Squeeze", ["h_out", "zero"], ["last"]),
        node("Tanh", ["last"], ["actions"]),
    ]
    inputs = {"obs": ["batch", F], "h_in": [1, "batch", U]}
    return graph_of(nodes, inputs, ["actions", "h_out"], arrays)


@pytest.mark.parametrize("make", [window, one_step])
@pytest.mark.parametrize("backend", BACKENDS)
def test_graphs_without_an_axis_of_steps(make: Callable[[], Model], backend: str) -> None:
    model = make()
    spec = nc.from_onnx(model)
    main, state = spec.inputs
    assert [pair[0] for pair in spec.state_pairs] == [state.name]
    session = npylstm.Model(spec, backend).session(3)
    carried = np.zeros(shape_of(state, 3), "float32")
    rng = np.random.default_rng(2)
    for _ in range(4):
        x = draw(rng, *shape_of(main, 3))
        expected = run_onnxruntime(model, {main.name: x, state.name: carried})
        made = session.push({main.name: x})
        for output, array in expected.items():
            np.testing.assert_allclose(made[output], array, rtol=0, atol=ATOL)
        carried = expected[spec.state_pairs[0][1]]


# --- what is not a pair --------------------------------------------------------------------------


def also_read() -> Model:
    model = lstm_states()
    model.graph.node.extend([node("ReduceSum", ["h"], ["total"], keepdims=0)])
    axes = node("ReduceSum", ["h", "axes"], ["total"], keepdims=0)
    model.graph.node[-1].CopyFrom(axes)
    model.graph.initializer.extend(
        graph_of([], {}, [], {"axes": np.array([0, 2])}).graph.initializer
    )
    model.graph.output.extend(graph_of([], {}, ["total"]).graph.output)
    return model


def swapped() -> Model:
    """Names do not matter: the output hn is the cell state."""
    model = lstm_states()
    model.graph.node[0].output[1:] = ["cn", "hn"]
    return model


def scaled() -> Model:
    model = lstm_states()
    model.graph.node[0].output[1] = "h1"
    model.graph.node.extend([node("Add", ["h1", "h1"], ["hn"])])
    return model


def layers_exchanged() -> Model:
    model = layers_of(1)()
    (joined,) = [n for n in model.graph.node if n.output[0] == "hn"]
    joined.input[:] = ["b_h", "a_h"]
    return model


def stacked_in_another_order() -> Model:
    model = stacked_h_and_c()
    model.graph.node[2].input[:] = ["c1", "h1"]
    return model


def of_another_layer() -> Model:
    """The output is the state of a second layer that starts from zeros."""
    model = layers_of(1)()
    model.graph.node[5].input[5:] = []
    (joined,) = [n for n in model.graph.node if n.output[0] == "hn"]
    joined.input[:] = ["b_h", "b_h"]
    return model


def starts_two_layers() -> Model:
    """One input is the initial state of two layers, and the output the state of the first."""
    nodes = [
        node("GRU", ["x", "aW", "aR", "aB", "", "h"], ["", "hn"], hidden_size=U),
        node("GRU", ["x", "bW", "bR", "bB", "", "h"], ["y"], hidden_size=U),
    ]
    arrays = weights(("a", "GRU", F, 1), ("b", "GRU", F, 1))
    return graph_of(nodes, {**X, "h": [1, "batch", U]}, ["y", "hn"], arrays)


def starts_both_states() -> Model:
    """One input is h and c of an LSTM, and the output h alone."""
    call = node("LSTM", ["x", "W", "R", "B", "", "s", "s"], ["y", "hn"], hidden_size=U)
    inputs = {**X, "s": [1, "batch", U]}
    return graph_of([call], inputs, ["y", "hn"], weights(("", "LSTM", F, 1)))


NO_PAIRS: list[tuple[Callable[[], Model], tuple[tuple[str, str], ...]]] = [
    (also_read, (("c", "cn"),)),
    (swapped, (("h", "cn"), ("c", "hn"))),
    (scaled, (("c", "cn"),)),
    (layers_exchanged, (("c", "cn"),)),
    (stacked_in_another_order, ()),
    (of_another_layer, ()),
    (starts_two_layers, ()),
    (starts_both_states, ()),
]


@pytest.mark.parametrize(("make", "pairs"), NO_PAIRS)
def test_what_is_not_a_pair(make: Callable[[], Model], pairs: Any) -> None:
    model = make()
    spec = nc.from_onnx(model)
    assert spec.state_pairs == pairs
    agree(model, drawn(spec, 4, 2))
    if make not in (swapped, of_another_layer):
        with pytest.raises(UnsupportedError, match="is computed or given"):
            npylstm.Model(spec).session()


def test_the_state_of_a_scan_is_a_pair() -> None:
    """What the scan stacks is not its state, though it is its first output."""
    step = body(
        [node("Add", ["s", "xt"], ["new"]), node("Identity", ["new"], ["seen"])],
        [value("s", ["batch", F]), value("xt", ["batch", F])],
        [value("new", ["batch", F]), value("seen", ["batch", F])],
    )
    nodes = [node("Scan", ["total", "x"], ["total_out", "totals"], body=step, num_scan_inputs=1,
                  scan_output_axes=[1])]  # fmt: skip
    model = graph_of(
        nodes, {"x": ["steps", "batch", F], "total": ["batch", F]}, ["total_out", "totals"]
    )
    spec = nc.from_onnx(model)
    assert spec.state_pairs == (("total", "total_out"),)
    agree(model, drawn(spec, 4, 2))
    session = npylstm.Model(spec).session(2)
    x = drawn(spec, 6, 2)["x"]
    parts = [session.push({"x": part})["totals"] for part in np.split(x, [1, 4])]
    np.testing.assert_allclose(np.concatenate(parts, 1), x.cumsum(0).swapaxes(0, 1), atol=1e-5)
