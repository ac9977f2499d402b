"""The functions and signatures of a SavedModel, as ``saved_model.pb`` holds them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from npylstm import FormatError
from npylstm_converters.tensorflow.constants import read_constant
from npylstm_converters.toolkit.wire import Message, signed

__all__ = [
    "DataType", "Function", "Node", "Program", "Signature", "TensorInfo", "node_of", "read_program",
]  # fmt: skip

# Fields of AttrValue.
_LIST, _BYTES, _INT, _FLOAT, _BOOL, _TYPE, _SHAPE, _TENSOR, _FUNCTION = 1, 2, 3, 4, 5, 6, 7, 8, 10
_KINDS = (_LIST, _BYTES, _INT, _FLOAT, _BOOL, _TYPE, _SHAPE, _TENSOR, _FUNCTION)
_INTERNAL = "_"  # how the names of attributes begin that change no number


class DataType(int):
    """TensorFlow's number of a type, as the value of an attribute."""


class FunctionName(str):
    """The name of a function, as the value of an attribute."""

    __slots__ = ()


class Node(NamedTuple):
    """One operation: its inputs are tensors of its graph, without those that only order it."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Function(NamedTuple):
    """A function: the names of its arguments, the tensors that it returns, and its nodes."""

    name: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    nodes: Mapping[str, Node]


class TensorInfo(NamedTuple):
    """An input or output of a signature: a tensor, its type, and its sizes, None where free."""

    tensor: str
    kind: int
    shape: tuple[int | None, ...] | None


class Signature(NamedTuple):
    """What a SavedModel computes by this name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Program:
    """The graph for inference.

    Attributes
    ----------
    nodes
        Of the graph itself, by name.
    functions, signatures
        By name.
    captured
        For each function that was saved with an object, the objects whose variables it reads, by
        their number in the object graph.
    version
        Of TensorFlow.
    """

    nodes: Mapping[str, Node]
    functions: Mapping[str, Function]
    signatures: Mapping[str, Signature]
    captured: Mapping[str, Sequence[int]]
    version: str

    def reached(self, tensors: Iterable[str]) -> tuple[list[Node], list[Function]]:
        """Return the nodes that tensors are computed from, and all functions that these call."""
        nodes: dict[str, Node] = {}
        todo = [node_of(name) for name in tensors]
        while todo:
            node = self.nodes.get(todo.pop())
            if node is not None and node.name not in nodes:
                nodes[node.name] = node
                todo += map(node_of, node.inputs)
        functions: dict[str, Function] = {}
        calling = [*nodes.values()]
        while calling:
            for value in calling.pop().attributes.values():
                if isinstance(value, FunctionName) and value not in functions:
                    function = self.functions.get(value)
                    if function is not None:
                        functions[value] = function
                        calling += function.nodes.values()
        return [*nodes.values()], [*functions.values()]


def node_of(reference: str) -> str:
    """Return the name of the node that makes a tensor, or of the argument that it is."""
    return reference.partition(":")[0]


def read_program(graph: Message) -> Program:
    """Read a MetaGraphDef with the fields 1, 2, 5 and 7.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    definition = graph.message(2, 1, 2)
    functions = [_function(m) for m in definition.message(2, 1).messages(1, 1, 3, 4)]
    entries = [(m.text(1), m.message(2, 1, 2)) for m in graph.messages(5, 1, 2)]
    concrete = graph.message(7, 2).messages(2, 1, 2)
    return Program(
        _nodes(definition, 1),
        {function.name: function for function in functions},
        {name: Signature(_tensors(s, 1), _tensors(s, 2)) for name, s in entries},
        {m.text(1): m.message(2, 2).integers(2) for m in concrete},
        graph.message(1, 5).text(5),
    )


def _nodes(message: Message, number: int) -> dict[str, Node]:
    nodes = [_node(fields) for fields in message.messages(number, 1, 2, 3, 5)]
    named = {node.name: node for node in nodes}
    if len(named) < len(nodes):
        raise FormatError("two operations of one graph have the same name")
    return named


def _node(fields: Message) -> Node:
    inputs = tuple(name for name in fields.texts(3) if not name.startswith("^"))
    attributes = {m.text(1): m.message(2, *_KINDS) for m in fields.messages(5, 1, 2)}
    values = {
        name: _value(message)
        for name, message in attributes.items()
        if not name.startswith(_INTERNAL)
    }
    return Node(fields.text(1), fields.text(2), inputs, values)


def _value(message: Message) -> Any:
    """Return the value of an attribute; None for a kind that no operation here has."""
    kinds = message.present()
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind == _BYTES:
        return bytes(message.data(kind) or b"").decode("utf-8", "replace")
    if kind == _INT:
        return signed(message.integer(kind))
    if kind == _FLOAT:
        return struct.unpack("<f", message.integer(kind).to_bytes(4, "little"))[0]
    if kind == _BOOL:
        return bool(message.integer(kind))
    if kind == _TYPE:
        return DataType(message.integer(kind))
    if kind == _SHAPE:
        return _shape(message.message(kind, 2, 3))
    if kind == _TENSOR:
        return read_constant(message.message(kind, *range(1, 18)))
    if kind == _FUNCTION:
        return FunctionName(message.message(kind, 1).text(1))
    return _list(message.message(_LIST, 2, 3, 4, 6))


def _list(message: Message) -> list[Any]:
    """Return an attribute that is a list of texts, integers, numbers or types."""
    numbers = message.packed(4, 4)
    return [
        *message.texts(2), *map(signed, message.integers(3)),
        *(n for (n,) in struct.iter_unpack("<f", numbers[: len(numbers) // 4 * 4])),
        *map(DataType, message.integers(6)),
    ]  # fmt: skip


def _shape(message: Message) -> tuple[int | None, ...] | None:
    if message.integer(3):
        return None
    sizes = (signed(dim.integer(1)) for dim in message.messages(2, 1))
    return tuple(None if size < 0 else size for size in sizes)


def _function(fields: Message) -> Function:
    signature = fields.message(1, 1, 2, 3)
    outputs = [argument.text(1) for argument in signature.messages(3, 1)]
    returned = {m.text(1): m.text(2) for m in fields.messages(4, 1, 2)}
    name = signature.text(1)
    missing = [output for output in outputs if output not in returned]
    if missing:
        raise FormatError(f"function {name!r:.80}: nothing makes its result {missing[0]!r:.80}")
    arguments = tuple(argument.text(1) for argument in signature.messages(2, 1))
    results = tuple(returned[output] for output in outputs)
    return Function(name, arguments, results, _nodes(fields, 3))


def _tensors(signature: Message, number: int) -> dict[str, TensorInfo]:
    found = {}
    for entry in signature.messages(number, 1, 2):
        info = entry.message(2, 1, 2, 3)
        shape = _shape(info.message(3, 2, 3))
        found[entry.text(1)] = TensorInfo(info.text(1), info.integer(2), shape)
    return found
