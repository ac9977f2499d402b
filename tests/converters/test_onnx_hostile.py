"""Damaged, lying and malicious ONNX files: converted, or refused in one line, cheaply."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import onnx
import pytest
from npylstm_converters.registry import importers
from onnx import TensorProto
from onnx_cells import ELMAN, SIZES, WEIGHTS, X, state, zeros
from onnx_graphs import body, draw, graph_of, node, recurrent_weights, value

from npylstm import FormatError, NpylstmError, UnsupportedError

DATA = Path(__file__).parent.parent / "data"
MB = 1 << 20
LONGEST_LINE = 4000
INT = TensorProto.INT64


def sound() -> Any:
    """Return a graph with a recurrent operator, sizes, a loop and an If."""
    step = body(
        [*ELMAN, node("Identity", ["new"], ["new_"])],
        [state("h"), value("xt", ["batch", 3])], [state("new"), value("new_", None)],
    )  # fmt: skip
    same = body([node("Identity", ["y4"], ["a"])], [], ["a"])
    nodes = [
        node("GRU", ["x", "GW", "GR", "GB"], ["y4"], hidden_size=4),
        node("If", ["true"], ["chosen"], then_branch=same, else_branch=same),
        node("Squeeze", ["chosen", "axis"], ["y"]),
        *zeros("h0"),
        node("Scan", ["h0", "x"], ["h_final", "hs"], body=step, num_scan_inputs=1),
        node("Concat", ["y", "hs"], ["both"], axis=2),
    ]
    arrays = {
        **WEIGHTS,
        **SIZES,
        **recurrent_weights("GRU", 3, 4, prefix="G"),
        "axis": np.array([1]),
    }
    return graph_of(nodes, X, ["both"], arrays)


SOUND = sound().SerializeToString()


def attempt(source: Any) -> bool:
    """Return whether it converts; if it does not, the error is a line that a screen holds."""
    try:
        return bool(nc.from_onnx(source).outputs)
    except NpylstmError as error:
        line = str(error)
    assert 0 < len(line) < LONGEST_LINE
    assert "\n" not in line
    return False


def test_the_sound_one_converts() -> None:
    assert attempt(SOUND)


def test_truncated_files() -> None:
    with pytest.raises(FormatError):
        nc.from_onnx(b"")
    for end in range(1, len(SOUND), len(SOUND) // 60):
        attempt(SOUND[:end])


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        data = bytearray(SOUND)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(data))
            way = rng.random()
            if way < 0.6:
                data[at] = rng.choice((0, 1, 127, 128, 255, data[at] ^ (1 << rng.randrange(8))))
            elif way < 0.8:
                del data[at : at + rng.choice((1, 2, 8))]
            else:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 8))))
        attempt(bytes(data))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_graphs(seed: int) -> None:
    """The bytes are sound; what they say is not."""
    rng = random.Random(100 + seed)
    names = ["x", "y", "h0", "true", "axis", "W", "", "both", "nowhere"]
    for _ in range(40):
        model = sound()
        graph = model.graph
        own = rng.choice(graph.node)
        way = rng.randrange(7)
        if way == 0:
            own.op_type = rng.choice(
                ["LSTM", "Loop", "Reshape", "Gather", "Slice", "If", "Nothing"]
            )
        elif way == 1 and len(own.input):
            own.input[rng.randrange(len(own.input))] = rng.choice(names)
        elif way == 2:
            own.output[0] = rng.choice(names)
        elif way == 3:
            graph.node.remove(own)
        elif way == 4 and len(own.attribute):
            changed = rng.choice(own.attribute)
            changed.i = rng.choice((-1, 0, 7, 1 << 40))
            changed.type = rng.choice((changed.type, 1, 2, 3, 7))
        elif way == 5:
            tensor = rng.choice(graph.initializer)
            tensor.dims[:] = [rng.choice((0, -1, 3, 1 << 40)) for _ in tensor.dims] or [2]
        else:
            dims = graph.input[0].type.tensor_type.shape.dim
            rng.choice(dims).dim_value = rng.choice((0, -1, 1, 1 << 40))
        attempt(model)


# --- claims of sizes -----------------------------------------------------------------------------

FAR = np.array([10**12])


def computes(operator: str, inputs: list[str], arrays: dict[str, Any], **attributes: Any) -> Any:
    made = node(operator, inputs, ["big"], **attributes)
    used = node("Identity", ["big"], ["y"])
    return graph_of([made, used], {"x": ["batch", 4]}, ["y"], arrays)


def with_state(*repeated: Any, **arrays: Any) -> Any:
    """Return a GRU whose initial state the graph also makes larger, to ``y``."""
    gru = node("GRU", ["x", "W", "R", "B", "", "h"], ["", "hn"], hidden_size=2)
    inputs = {"x": ["steps", "batch", 2], "h": [1, "batch", 2]}
    stored = {**recurrent_weights("GRU", 2, 2), **arrays}
    return graph_of([gru, *repeated], inputs, ["hn", "y"], stored)


def formula(*operators: str) -> Any:
    """Return a graph that computes with the size of an axis again and again."""
    nodes = [node("Shape", ["x"], ["s0"], start=0, end=1)]
    for k, operator in enumerate(operators):
        second = f"s{k}" if operator == "Mul" else "three" if operator == "Div" else "s0"
        nodes.append(node(operator, [f"s{k}", second], [f"s{k + 1}"]))
    cast = node("Cast", [f"s{len(operators)}"], ["number"], to=onnx.TensorProto.FLOAT)
    nodes += [cast, node("Add", ["x", "number"], ["y"])]
    return graph_of(nodes, {"x": ["batch", 4]}, ["y"], {"three": np.array([3])})


CLAIMS: dict[str, Callable[[], Any]] = {
    "ConstantOfShape": lambda: computes("ConstantOfShape", ["far"], {"far": FAR}),
    "ConstantOfShape of many": lambda: computes(
        "ConstantOfShape", ["far"], {"far": np.array([10**4] * 4)}
    ),
    "Expand": lambda: computes("Expand", ["one", "far"], {"one": np.float32([1]), "far": FAR}),
    "Expand an input": lambda: computes("Expand", ["x", "far"], {"far": np.array([10**12, 1, 1])}),
    "Range": lambda: computes(
        "Range", ["a", "b", "c"], {"a": np.array(0), "b": np.array(10**12), "c": np.array(1)}
    ),
    "Tile": lambda: computes("Tile", ["one", "far"], {"one": np.float32([1]), "far": FAR}),
    "Tile an input": lambda: computes("Tile", ["x", "far"], {"far": np.array([1, 10**12])}),
    "OneHot": lambda: computes(
        "OneHot", ["i", "far", "v"],
        {"i": np.array([1]), "far": np.array(10**12), "v": np.float32([0, 1])},
    ),
    "OneHot of an input": lambda: computes(
        "OneHot", ["x", "far", "v"], {"far": np.array(10**12), "v": np.float32([0, 1])}
    ),
    "Pad": lambda: computes("Pad", ["one", "far"], {"one": np.float32([1]), "far": np.array([0, 10**12])}),
    "Pad an input": lambda: computes("Pad", ["x", "far"], {"far": np.array([0, 0, 0, 10**12])}),
    "Resize": lambda: computes(
        "Resize", ["one", "", "", "far"], {"one": draw(np.random.default_rng(0), 1, 1, 2), "far": np.array([1, 1, 10**12])},
    ),
    "Upsample": lambda: computes(
        "Resize", ["one", "", "far"], {"one": draw(np.random.default_rng(0), 1, 1, 2), "far": np.float32([1, 1, 1e12])},
    ),
    "a negative size": lambda: computes("ConstantOfShape", ["far"], {"far": np.array([-5])}),
    "large sizes": lambda: computes(
        "Concat", ["far", "far"], {"far": FAR}, axis=0
    ),
    "MatMul": lambda: computes("MatMul", ["a", "b"], {"a": np.ones((50000, 1), "f4"), "b": np.ones((1, 50000), "f4")}),
    "Einsum": lambda: computes(
        "Einsum", ["a", "a", "a"], {"a": np.ones(2000, "f4")}, equation="i,j,k->ijk"
    ),
    "HannWindow": lambda: computes("HannWindow", ["far"], {"far": np.array(10**12)}),
    "Einsum of a sum": lambda: computes(
        "Einsum", ["a", "a", "a"], {"a": np.ones(2000, "f4")}, equation="i,j,k->"
    ),
    "Conv": lambda: computes(
        "Conv", ["a", "b"], {"a": np.ones((1, 1, 3), "f4"), "b": np.ones((1, 1, 1), "f4")},
        pads=[0, 10**12],
    ),
    "Split": lambda: graph_of(
        [node("Split", ["x"], ["y"], axis=1, num_outputs=1 << 33)], {"x": ["batch", 4]}, ["y"], opset=18
    ),
    "a state that is repeated": lambda: with_state(
        node("Tile", ["h", "many"], ["h2"]), node("Tile", ["h2", "many"], ["y"]),
        many=np.array([400, 1, 400]),
    ),
    "sums and products of a size": lambda: formula(*["Add", "Mul"] * 20),
    "products of a size": lambda: formula(*["Mul"] * 40),
    "quotients of a size": lambda: formula(*["Div", "Mul"] * 20),
    "Add": lambda: computes("Add", ["a", "b"], {"a": np.ones((50000, 1), "f4"), "b": np.ones((1, 50000), "f4")}),
}  # fmt: skip


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let an allocation of a gigabyte fail, so that a mistake costs no more than that."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1024 * MB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory as Linux does")
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", CLAIMS)
def test_claims_of_sizes_cost_little(name: str) -> None:
    model = CLAIMS[name]()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    reason = ""
    try:
        nc.from_onnx(model)
    except UnsupportedError as error:
        reason = str(error)
    assert "cannot be evaluated" not in reason  # because the memory is not there
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024


# --- graphs that are not graphs ------------------------------------------------------------------


def nested(depth: int) -> Any:
    """Return an If in an If; built from outside, because protobuf copies no deep messages."""
    model = graph_of([], {"x": ["batch", 4]}, ["y"], {"true": np.array(True)})
    graph, name = model.graph, "y"
    for _ in range(depth):
        call = graph.node.add(op_type="If", input=["true"], output=[name])
        for branch in ("else_branch", "then_branch"):
            graph = call.attribute.add(name=branch, type=onnx.AttributeProto.GRAPH).g
            name = f"{name}_"
            graph.output.add(name=name)
    graph.node.add(op_type="Identity", input=["x"], output=[name])
    return model


def test_nested_graphs() -> None:
    assert attempt(nested(5))
    for depth in (40, 1000):
        with pytest.raises(FormatError, match="graphs inside nodes are nested more than 32 deep"):
            nc.from_onnx(nested(depth))


def of(*nodes: Any, **arrays: Any) -> Any:
    return graph_of(nodes, {"x": ["batch", 4]}, ["y"], arrays)


BROKEN: list[tuple[Any, str]] = [
    (of(node("Add", ["x", "b"], ["a"]), node("Tanh", ["a"], ["b"]), node("Tanh", ["b"], ["y"])), "which no node makes"),
    (of(node("Add", ["x", "y"], ["y"])), "Add y: reads 'y', which no node makes"),
    (of(node("Tanh", ["a"], ["y"])), "Tanh y: reads 'a', which no node makes"),
    (of(node("Tanh", ["x"], ["a"])), "output 'y': no node makes it"),
    (of(node("Tanh", [], ["y"])), "Tanh y: cannot be evaluated"),
    (of(node("Tanh", [""], ["y"])), "Tanh y: "),
    (of(node("Tanh", ["x", "x"], ["y"])), "Tanh y: has too many arguments"),
    (of(node("Gemm", ["x", "w"], ["y"], alpha="one"), w=np.ones((4, 2), "f4")), "Gemm y: "),
    (of(node("Gemm", ["x", "w"], ["y"]), w=np.ones(4, "f4")), "Gemm y: "),
    (of(node("MatMul", ["x", "w"], ["y"]), w=np.ones((5, 2), "f4")), "MatMul y: "),
    (of(node("Conv", ["x", "w"], ["y"]), w=np.float32(1)), "Conv y: "),
    (of(node("Transpose", ["x"], ["y"], perm=[0, 7])), "Transpose y: "),
    (of(node("Concat", ["x", "x"], ["y"])), "Concat y: missing a required argument: 'axis'"),
    (of(node("Concat", ["x", "x"], ["y"], axis=9)), "Concat y: "),
    (of(node("Gather", ["x", "i"], ["y"], axis=1), i=np.array(9)), "Gather y: "),
    (of(node("Squeeze", ["x", "i"], ["y"]), i=np.array([1])), "Squeeze y: axis 1: expected one of size 1"),
    (of(node("Constant", [], ["y"])), "Constant y: "),
    (of(node("Softmax", ["x"], ["y"], axis=5)), "Softmax y: "),
]  # fmt: skip


@pytest.mark.parametrize(("model", "message"), BROKEN)
def test_graphs_that_do_not_fit_together(model: Any, message: str) -> None:
    with pytest.raises(NpylstmError, match=message) as caught:
        nc.from_onnx(model)
    assert isinstance(caught.value, (FormatError, UnsupportedError))


def test_two_nodes_that_make_one_tensor() -> None:
    model = of(node("Tanh", ["x"], ["y"]), node("Relu", ["x"], ["y"]))
    with pytest.raises(NpylstmError, match="'y'"):
        nc.from_onnx(model)


def test_arrays_that_are_shorter_than_their_shape() -> None:
    model = of(node("MatMul", ["x", "w"], ["y"]), w=np.ones((4, 2), "f4"))
    for dims in ([4, 3], [10**9, 10**9], [-4, -2]):
        model.graph.initializer[0].dims[:] = dims
        with pytest.raises(FormatError, match="initializer 'w'"):
            nc.from_onnx(model)
    model.graph.initializer[0].data_type = 99
    with pytest.raises(FormatError, match="initializer 'w'"):
        nc.from_onnx(model)


def test_data_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(8, "f4").tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    model = of(node("MatMul", ["x", "w"], ["y"]), w=np.ones((4, 2), "f4"))
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for location in ("../secret.bin", str(secret)):
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(FormatError, match=r"m\.onnx: "):
            nc.from_onnx(folder / "m.onnx")
    inside = folder / "w.bin"
    inside.write_bytes(secret.read_bytes())
    tensor.external_data[0].value = "w.bin"
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    assert nc.from_onnx(folder / "m.onnx").parameters == 8
    inside.unlink()
    with pytest.raises((FormatError, OSError), match=r"w\.bin"):
        nc.from_onnx(folder / "m.onnx")
    with pytest.raises(FormatError):
        nc.from_onnx(model.SerializeToString())


# --- which importer reads what -------------------------------------------------------------------


def test_files_of_other_formats_are_not_onnx() -> None:
    root = DATA.parent.parent
    others = [*(DATA / "keras").glob("*.h5"), *(DATA / "keras").glob("*.keras"),
              *(DATA / "keras").glob("*.json"), *(DATA / "tfjs").rglob("*.json"),
              *(root / "models").rglob("*.pt*"), *(root / "models").rglob("*.safetensors"),
              *(root / "models").rglob("*.npz"), *(DATA / "onnx").glob("*.py")]  # fmt: skip
    assert len(others) > 50
    (own,) = [importer for importer in importers() if importer.name == "onnx"]
    for path in others:
        head = path.read_bytes()[:512]
        assert not own.accepts(path, head), path


def test_onnx_files_are_of_no_other_importer(tmp_path: Path) -> None:
    (tmp_path / "sound.data").write_bytes(SOUND)
    for path in [tmp_path / "sound.data", *(DATA / "onnx").glob("*.onnx")]:
        head = path.read_bytes()[:512]
        assert [i.name for i in importers() if i.accepts(path, head)] == ["onnx"]
        assert nc.find_importer(path).name == "onnx"
    assert nc.find_importer(sound()).name == "onnx"
