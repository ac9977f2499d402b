"""Graphs as exporters write them: shape arithmetic, fixed sizes, names; against onnxruntime."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx_graphs import (
    ATOL,
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
from onnx_modules import MODULES, export, randomise

import npylstm
from npylstm import NpylstmError, ShapeError, UnsupportedError

DATA = Path(__file__).parent.parent / "data/onnx"
F, U = 3, 4
INT = TensorProto.INT64
Sizes = Mapping[str, int]
SIZES: list[Sizes] = [
    {"batch": 2, "steps": 6, "decoded": 5}, {"batch": 1, "steps": 1, "decoded": 1},
    {"batch": 3, "steps": 9, "decoded": 4},
]  # fmt: skip


def drawn(shapes: Mapping[str, Sequence[int | str]], sizes: Sizes) -> dict[str, Array]:
    rng = np.random.default_rng(sizes["steps"])
    made = {}
    for name, shape in shapes.items():
        numbers = [d if isinstance(d, int) else sizes[d] for d in shape]
        draws = {"ids": lambda n: rng.integers(0, 9, n), "mask": lambda n: rng.random(n) < 0.7}
        made[name] = draws.get(name, lambda n: draw(rng, *n))(numbers)
    return made


@pytest.mark.one_in(2)
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", MODULES)
def test_exports_of_torch(name: str, opset: int) -> None:
    shapes = MODULES[name].inputs
    model = onnx.load_model_from_string(export(name, opset=opset))
    spec = agree(model, *(drawn(shapes, sizes) for sizes in SIZES))
    assert [t.name for t in spec.inputs] == [*shapes]
    assert list(spec.outputs) == [v.name for v in model.graph.output]
    if name in ("unbatched", "fixed"):
        assert [t.shape for t in spec.inputs] == [*map(tuple, shapes.values())]
        return
    for tensor, shape in zip(spec.inputs, shapes.values(), strict=True):
        assert tensor.shape == tuple("batch" if d == 1 else d for d in shape)
    assert {e["source"] for e in spec.provenance["tensors"]} == {
        tensor.name for tensor in model.graph.initializer if len(tensor.dims)
    } or name in ("tagger", "convolved")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.onnx")), ids=lambda path: path.stem)
def test_files_of_exporters(path: Path) -> None:
    """In some of PyTorch's newer exporter the number of steps is fixed, to six."""
    if path.stem == "torch_projected":
        with pytest.raises(
            UnsupportedError, match=r"initial_c: has 4 units, the layer 2; .*proj_size"
        ):
            nc.from_onnx(path)
        return
    model = onnx.load_model(path)
    shapes = {}
    for own in model.graph.input:
        dims = own.type.tensor_type.shape.dim
        names = iter(("batch", "steps"))
        shapes[own.name] = [d.dim_value or next(names) for d in dims]
    spec = agree(model, *(drawn(shapes, sizes) for sizes in SIZES))
    assert nc.from_onnx(path).provenance["source_sha256"]
    assert spec.inputs[0].shape[1 if "first" in path.stem else 0] == "batch"
    # tf2onnx merges batch and steps for a Dense layer.
    if path.stem.startswith("keras_") and path.stem not in ("keras_bidirectional", "keras_gru"):
        x = drawn(shapes, SIZES[2])["x"]
        session = npylstm.Model(spec).session(3)
        parts = [session.push(part) for part in np.split(x, [1, 4], axis=1)]
        (whole,) = predict(spec, {"x": x}).values()
        made = np.concatenate(parts, 1) if whole.ndim == 3 else parts[-1]
        np.testing.assert_allclose(made, whole, rtol=0, atol=1e-6)


def scripted(stacked: bool) -> Any:
    """Return a loop in TorchScript, exported with dynamo=False."""
    scripted_code = {False: FinalState, True: EveryStep}[stacked]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript and its exporter are deprecated
        module = torch.jit.script(randomise(scripted_code()))
        torch.onnx.export(
            module, (torch.rand(6, 2, F),), file, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "steps", 1: "batch"}}, opset_version=17,
        )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


class FinalState(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(F, 4 * U), torch.nn.Linear(U, 4 * U)

    def forward(self, x):  # type: ignore[no-untyped-def]
        h = torch.zeros([x.size(1), 4])
        c = h
        for t in range(x.size(0)):
            i, f, g, o = (self.a(x[t]) + self.b(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h, c


class EveryStep(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(F, U), torch.nn.Linear(U, U)

    def forward(self, x):  # type: ignore[no-untyped-def]
        h = torch.zeros([x.size(1), 4])
        ys = []
        for t in range(x.size(0)):
            h = torch.tanh(self.a(x[t]) + self.b(h))
            ys.append(h)
        return torch.stack(ys)


def test_a_loop_in_torchscript() -> None:
    model = scripted(stacked=False)
    assert "Loop" in [n.op_type for n in model.graph.node]
    spec = agree(model, *(drawn({"x": ["steps", "batch", F]}, sizes) for sizes in SIZES))
    assert npylstm.Model(spec).session().push(np.zeros((3, 1, F), "float32"))
    with pytest.raises(UnsupportedError, match=r"SequenceEmpty .*: is not supported"):
        nc.from_onnx(scripted(stacked=True))


def test_the_batch_of_one_in_a_file_is_free() -> None:
    model = onnx.load_model_from_string(export("fixed_batch"))
    spec = nc.from_onnx(model)
    x = draw(np.random.default_rng(0), 3, 8, F)
    expected = [run_onnxruntime(model, {"x": one[None]}) for one in x]
    (made,) = predict(spec, {"x": x}).values()
    (name,) = expected[0]
    np.testing.assert_allclose(made, np.concatenate([e[name] for e in expected]), rtol=0, atol=ATOL)


# --- names and constants -------------------------------------------------------------------------


def with_rate(dims: Sequence[int]) -> Any:
    """Return an LSTM whose input is divided by a rate, an integer input."""
    nodes = [
        node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT),
        node("Div", ["x", "rate"], ["scaled"]),
        node("LSTM", ["scaled", "W", "R", "B"], ["", "last"], hidden_size=U),
    ]
    inputs = [value("x", ["n_frames", "batch", F]), value("sr", dims, INT)]
    return graph_of(nodes, inputs, ["last"], recurrent_weights("LSTM", F, U))


@pytest.mark.parametrize("dims", [[], [1]])
@pytest.mark.parametrize("given", [4, [4], np.array(4), np.float32(4)])
def test_an_input_that_is_fixed(dims: Sequence[int], given: Any) -> None:
    model = with_rate(dims)
    spec = nc.from_onnx(model, constants={"sr": given})
    assert [t.name for t in spec.inputs] == ["x"]
    x = draw(np.random.default_rng(0), 5, 2, F)
    expected = run_onnxruntime(model, {"x": x, "sr": np.full(dims, 4)})["last"]
    np.testing.assert_allclose(predict(spec, {"x": x})["last"], expected, rtol=0, atol=ATOL)


def test_a_size_that_is_fixed() -> None:
    spec = nc.from_onnx(with_rate([]), constants={"sr": 4, "n_frames": 5})
    assert spec.inputs[0].shape == (5, "batch", F)
    with pytest.raises(ShapeError, match=r"x: expected \(5, batch, 3\)"):
        predict(spec, {"x": np.zeros((6, 1, F), "float32")})


def test_a_constant_that_the_graph_does_not_have() -> None:
    message = "the graph has no input or size 'rate'; it has x, sr, batch, n_frames"
    with pytest.raises(NpylstmError, match=message):
        nc.from_onnx(with_rate([]), constants={"rate": 4})


def test_an_integer_input_stays_one() -> None:
    model = with_rate([])
    spec = nc.from_onnx(model)
    assert [(t.name, t.shape, t.integer) for t in spec.inputs][1] == ("sr", (), True)
    x = draw(np.random.default_rng(0), 5, 2, F)
    agree(model, {"x": x, "sr": np.array(7)})


def test_names_of_inputs_and_outputs_are_the_graphs() -> None:
    nodes = [
        node("LSTM", ["serving/x:0", "W", "R", "B"], ["/rnn/Y", "h", "out:0"], hidden_size=U),
        node("Identity", ["out:0"], ["copy"]),
        node("Tanh", ["h"], ["squashed"]),
    ]
    inputs = {"serving/x:0": ["steps", "batch", F]}
    outputs = ["squashed", "copy", "out:0", "h"]
    model = graph_of(nodes, inputs, outputs, recurrent_weights("LSTM", F, U))
    spec = agree(model, {"serving/x:0": draw(np.random.default_rng(0), 5, 2, F)})
    assert [t.name for t in spec.inputs] == ["serving/x:0"]
    assert spec.outputs == tuple(outputs)


# --- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["Div", "Mod", "Add", "Sub", "Mul"])
def test_arithmetic_on_integers(operator: str) -> None:
    """A quotient is cut off; a remainder has the sign of the divisor."""
    nodes = [node(operator, ["a", "b"], ["y"])]
    inputs = [value("a", ["batch", 4], INT), value("b", ["batch", 4], INT)]
    model = graph_of(nodes, inputs, [value("y", None, INT)])
    a, b = np.array([[7, -7, 7, -7], [6, 5, 0, 1]]), np.array([[2, 2, -2, -2], [3, 3, 3, -3]])
    if operator == "Div":  # onnxruntime divides as C does
        agree(model, {"a": a, "b": b})
    else:
        agree(model, {"a": a, "b": b}, {"a": a[:1], "b": b[:1]})


def test_a_cast_cuts_fractions_off() -> None:
    nodes = [node("Cast", ["x"], ["i"], to=INT), node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]
    x = np.array([[1.5, -1.5, 2.99, -0.2]], "float32")
    agree(graph_of(nodes, {"x": ["batch", 4]}, ["y"]), {"x": x})


SIZE_NODES = [
    node("Shape", ["x"], ["shape"]),
    node("Gather", ["shape", "axis"], ["steps"], axis=0),
    node("Div", ["steps", "two"], ["half"]),
    node("Unsqueeze", ["half", "zero"], ["end"]),
    node("Slice", ["x", "zero", "end", "zero"], ["first"]),
    node("GRU", ["first", "W", "R", "B"], ["y", "last"], hidden_size=U),
]


def test_half_of_the_steps_is_refused_or_right() -> None:
    arrays = recurrent_weights("GRU", F, U) | {
        "axis": np.array(0), "two": np.array(2), "zero": np.array([0]),
    }  # fmt: skip
    model = graph_of(SIZE_NODES, {"x": ["steps", "batch", F]}, ["last"], arrays)
    with pytest.raises(
        UnsupportedError, match=r"a slice that ends at \(steps\)//\(2\) of steps entries"
    ):
        nc.from_onnx(model)
    spec = nc.from_onnx(model, constants={"steps": 6})
    x = draw(np.random.default_rng(0), 6, 2, F)
    expected = run_onnxruntime(model, {"x": x})["last"]
    np.testing.assert_allclose(predict(spec, {"x": x})["last"], expected, rtol=0, atol=ATOL)


def test_all_reasons_come_at_once() -> None:
    nodes = [
        node("Bernoulli", ["x"], ["a"], name="first"),
        node("Det", ["a"], ["b"]),
        node("STFT", ["x"], ["c"], name="second"),
        node("Swish", ["x"], ["d"], name="third", domain="com.example"),
    ]
    model = graph_of(nodes, {"x": ["batch", 4]}, ["b", "c", "d"])
    with pytest.raises(UnsupportedError) as caught:
        nc.from_onnx(model)
    assert caught.value.reasons == (
        "Bernoulli first: is not supported", "STFT second: is not supported",
        "Swish third: operators of com.example are not supported",
    )  # fmt: skip


@pytest.mark.parametrize("operator", ["Mul", "Pow", "CumSum"])
def test_integers_that_floats_do_not_hold(operator: str) -> None:
    """Of larger ids, float32 would hold rounded results, and the remainders would be others."""
    second = {"Mul": 1000003, "Pow": 3, "CumSum": 1}[operator]
    arrays = {"n": np.array(second, np.int64), "m": np.array(97, np.int64)}
    nodes = [node(operator, ["x", "n"], ["big"]), node("Mod", ["big", "m"], ["y"])]
    shape = ("batch", "steps")
    graph = graph_of(nodes, [value("x", shape, INT)], [value("y", shape, INT)], arrays)
    model = npylstm.Model(nc.from_onnx(graph))
    ids = np.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(model.predict(ids), run_onnxruntime(graph, {"x": ids})["y"])
    large = ids + (9_000_000 if operator == "CumSum" else 4999)
    with pytest.raises(ShapeError, match="big_integers: expected integers from -16777215 to 16777"):
        model.predict(large)


def test_a_number_that_floats_do_not_hold() -> None:
    arrays = {"n": np.array(16777217, np.int64)}
    graph = graph_of(
        [node("Sub", ["x", "n"], ["y"])], [value("x", ("batch", "steps"), INT)],
        [value("y", ("batch", "steps"), INT)], arrays,
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="computes integers with 16777217, which float32"):
        nc.from_onnx(graph)
