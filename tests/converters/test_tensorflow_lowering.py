"""Functions that TensorFlow would not write: refused with the reason, in little time."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from npylstm_converters.errors import Reasons
from npylstm_converters.tensorflow.graph_def import Function, FunctionName, Node, Program
from npylstm_converters.tensorflow.lowering import Lowering, Variable
from npylstm_converters.tensorflow.rows import ROWS, VARIADIC

from npylstm import FormatError, UnsupportedError
from npylstm.arrays import Array

pytest.importorskip("onnx")


def lowering(*functions: Function) -> Lowering:
    program = Program({}, {f.name: f for f in functions}, {}, {}, "2.21")
    return Lowering(program, lambda _: ("w", np.ones(2)), (ROWS, VARIADIC), Reasons())


def function(name: str, *nodes: Node) -> Function:
    return Function(name, ("x",), (f"{nodes[-1].name}:0",), {node.name: node for node in nodes})


def refused(*nodes: Node) -> str:
    made = lowering(function("f", *nodes))
    assert made.call(made.program.functions["f"], ["x"]) == [None]
    with pytest.raises(UnsupportedError) as caught:
        made.reasons.raise_if_any()
    return str(caught.value)


@pytest.mark.parametrize(
    ("operation", "attributes", "says"),
    [
        ("Pack", {"axis": "first"}, "ValueError|TypeError"),
        ("Unpack", {"num": 2.5}, "TypeError"),
        ("Squeeze", {"squeeze_dims": 3}, "TypeError"),
        ("Squeeze", {"squeeze_dims": ["a"]}, "ValueError"),
        ("PartitionedCall", {"f": ["g"]}, "TypeError"),
    ],
)
def test_attributes_of_a_wrong_type(
    operation: str, attributes: dict[str, object], says: str
) -> None:
    """They are a reason beside others, not a traceback."""
    own = Node("own", operation, ("x",), attributes)
    text = refused(
        own, Node("other", "Lgamma", ("x",), {}), Node("sum", "Add", ("own", "other"), {})
    )
    assert re.search(rf"{operation} own: is malformed \(({says}): .+\)", text)
    assert "Lgamma other: is not supported" in text


def test_an_attribute_of_a_kind_that_is_not_read() -> None:
    """Its value is not replaced by the default."""
    text = refused(Node("own", "Unpack", ("x",), {"num": 1, "axis": None}))
    assert "Unpack own: attribute axis: has no value that is supported" in text


def test_errors_of_files_are_raised() -> None:
    """A variable that is missing is damage, not a reason."""
    made = lowering(function("f", Node("own", "ReadVariableOp", ("x",), {})))

    def missing(_: Variable) -> tuple[str, Array]:
        raise FormatError("the checkpoint does not have it")

    made = Lowering(made.program, missing, (ROWS, VARIADIC), Reasons())
    with pytest.raises(FormatError, match="the checkpoint does not have it"):
        made.call(made.program.functions["f"], [Variable("w")])


def test_the_body_of_a_loop_is_left_by_an_error() -> None:
    made = lowering()
    outer = made.nodes
    with pytest.raises(UnsupportedError), made.body():
        made.call(function("f", Node("own", "Unpack", ("x",), {"num": 1 << 40})), ["x"])
    assert made.nodes is outer


def test_a_node_that_reads_nothing_where_it_needs_a_tensor() -> None:
    assert "Const own: TensorFlow's type None is not supported" in refused(
        Node("own", "Const", (), {})
    )
    loop = Node("own", "While", ("x",), {"cond": "f", "body": "f"})
    same = function("f", Node("same", "Identity", (), {}))
    made = lowering(same)
    assert made.call(function("g", loop), ["x"]) == [None]
    with pytest.raises(UnsupportedError, match="While own: is malformed"):
        made.reasons.raise_if_any()


def test_loops_whose_nodes_are_cycles() -> None:
    for operation in ("Identity", "LogicalAnd"):
        cycle = [Node("a", operation, ("b", "b"), {}), Node("b", operation, ("a", "a"), {})]
        made = lowering(function("f", *cycle))
        loop = Node("own", "While", ("x",), {"cond": "f", "body": "f"})
        assert made.call(function("g", loop), ["x"]) == [None]
        assert made.reasons


def test_functions_that_call_functions_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few hundred bytes, and 2 to the power of 31 calls, none of which writes a node."""
    monkeypatch.setattr("npylstm_converters.tensorflow.lowering._MOST_NODES", 5000)
    functions = [function("f31", Node("a", "Identity", ("x",), {}))]
    for k in range(31):
        called = {"f": FunctionName(f"f{k + 1}")}
        twice = [Node(n, "PartitionedCall", (x,), called) for n, x in (("a", "x"), ("b", "a:0"))]
        functions.append(function(f"f{k}", *twice))
    made = lowering(*functions)
    began = time.process_time()
    with pytest.raises(UnsupportedError, match="more than 5,000 operations"):
        made.call(made.program.functions["f0"], ["x"])
    assert time.process_time() - began < 10
    assert made.nodes == []


def test_an_operation_with_any_number_of_outputs() -> None:
    made = lowering(function("f", Node("own", "Split", ("k", "x"), {"num_split": 1 << 40})))
    axis = Node("k", "Const", (), {"value": np.array(0)})
    own = Node("own", "Split", ("k", "x"), {"num_split": 1 << 40})
    with pytest.raises(UnsupportedError, match="more than 200,000 operations"):
        made.call(function("f", axis, own), ["x"])


def test_an_axis_with_any_number_of_entries() -> None:
    nodes = [Node(n, "Const", (), {"value": np.array(v)}) for n, v in (("n", 1 << 40), ("v", 1.0))]
    own = Node("own", "OneHot", ("x", "n", "v", "v"), {})
    assert "a constant of 1.1e+12 elements" in refused(*nodes, own)


def test_one_name_of_many_tensors_takes_linear_time() -> None:
    made = lowering()
    names = {made.unused("x") for _ in range(50_000)}
    assert len(names) == 50_000
    assert {"x", "x_1", "x_49999"} <= names
