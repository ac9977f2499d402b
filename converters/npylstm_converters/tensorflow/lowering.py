"""Write the functions of TensorFlow as a graph of ONNX, whose operators are supported already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npylstm import NpylstmError
from npylstm.arrays import Array
from npylstm_converters.errors import MALFORMED, Reasons, Refusal
from npylstm_converters.onnx.folding import can_evaluate, fold
from npylstm_converters.tensorflow.equality import Equality
from npylstm_converters.tensorflow.graph_def import DataType, Function, Node, Program, node_of
from npylstm_converters.toolkit.runners import one_line
from npylstm_converters.toolkit.translation import translate

__all__ = ["OPSET", "Call", "Frame", "Lowering", "Variable", "needed"]

OPSET = 18  # the version of ONNX's operators that are written

_DEEPEST = 32  # functions that call functions
_MOST_NODES = 200_000  # read, and as many outputs written; functions may be called many times
# Outputs of operations that have several, by name; of others the number is the place.
_OUTPUTS = {
    "TopKV2": ("values", "indices"),
    "FusedBatchNormV3": ("y", "batch_mean", "batch_variance", "reserve_space_1",
                         "reserve_space_2", "reserve_space_3"),
}  # fmt: skip
# Attributes that say how to compute, not what.
_NEUTRAL = frozenset({"config", "config_proto", "executor_type", "validate_shape",
                      "validate_indices", "incompatible_shape_error", "use_cudnn_on_gpu",
                      "exponential_avg_factor", "parallel_iterations"})  # fmt: skip
_MOST_SIZES = 64  # entries of a vector of sizes or axes
_WITH_TYPES = ("Cast",)  # operations that read attributes that are types


@dataclass(frozen=True)
class Variable:
    """The handle of a variable."""

    node: str


@dataclass
class Frame:
    """The nodes of one graph or of one call of a function, with the values that are known."""

    nodes: Mapping[str, Node]
    values: dict[str, Any] = field(default_factory=dict)  # of arguments
    made: dict[str, list[Any]] = field(default_factory=dict)  # of nodes


class Lowering:
    """Writes nodes of ONNX for nodes of TensorFlow.

    Parameters
    ----------
    program
        The functions that may be called.
    read
        Returns name and values of a variable by its handle.
    rows
        The translations by operation, and the names of those that take their inputs as a list.
    reasons
        Collects why operations are refused.

    Attributes
    ----------
    nodes
        Of the graph that is being written.
    constants
        Arrays by the name of their tensor.
    equality
        Which tensors are equal in every call.
    scope
        What the names of all operations begin with, which is left out.
    stored
        The names of those that are variables or constants of the files.
    parts
        For vectors that were put together, the tensors of their entries.
    last_of
        For tensors of one entry, the tensor whose last entry it is.
    """

    def __init__(
        self, program: Program, read: Callable[[Variable], tuple[str, Array]],
        rows: tuple[Mapping[str, Any], frozenset[str]], reasons: Reasons,
    ) -> None:  # fmt: skip
        self.program, self.reasons = program, reasons
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.equality = Equality()
        self.stored: set[str] = set()
        self.parts: dict[str, list[str]] = {}
        self.last_of: dict[str, str] = {}
        self._read, (self._rows, self._variadic) = read, rows
        self._variables: dict[Variable, str] = {}
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._assigned = {
            function.name: node.name for function in program.functions.values()
            for node in function.nodes.values() if node.operation.startswith("Assign")
        }  # fmt: skip
        self.scope = ""
        self._depth = self._read_count = self._written = 0

    def results(self, frame: Frame, references: Sequence[str]) -> list[Any]:
        """Return the values of tensors; None for those that cannot be computed."""
        made = []
        for reference in references:
            self._evaluate(frame, reference)
            try:
                made.append(self._value(frame, reference))
            except Refusal as error:
                self.reasons.add(str(error))
                made.append(None)
        return made

    def call(self, function: Function, values: Sequence[Any]) -> list[Any]:
        """Write the nodes of a function; return its results.

        Raises
        ------
        Refusal
            If the arguments do not fit, or functions call functions too deep.
        """
        if len(values) != len(function.arguments):
            raise Refusal(
                f"calls {function.name} with {len(values)} arguments, "
                f"expected {len(function.arguments)}"
            )
        if function.name in self._assigned:
            raise Refusal(
                f"{self._assigned[function.name]} keeps values between calls in a variable, "
                "which is not supported"
            )
        if self._depth >= _DEEPEST:
            raise Refusal(f"functions call functions more than {_DEEPEST} deep")
        frame = Frame(function.nodes, dict(zip(function.arguments, values, strict=True)))
        self._depth += 1
        try:
            return self.results(frame, function.results)
        finally:
            self._depth -= 1

    @contextmanager
    def body(self) -> Iterator[list[Any]]:
        """Collect the nodes that are written in the context apart, as those of a loop's body."""
        outer, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outer

    def function(self, name: str) -> Function:
        """Return a function of the program."""
        if name not in self.program.functions:
            raise Refusal(f"calls {name!r:.80}, and there is no such function")
        return self.program.functions[name]

    def unused(self, name: str) -> str:
        """Return a name that no tensor has, and take it."""
        made = name
        while made in self._taken:
            self._numbers[name] = self._numbers.get(name, 0) + 1
            made = f"{name}_{self._numbers[name]}"
        self._taken.add(made)
        return made

    def constant(self, array: Any, name: str = "constant") -> str:
        """Return a tensor of these values."""
        made = self.unused(name)
        self._keep(made, _widened(np.asarray(array)))
        return made

    def _keep(self, name: str, array: Array) -> None:
        self.constants[name] = array
        self.equality.add_constant(name, array)

    def variable(self, handle: Any) -> str:
        """Return the tensor of a variable's values."""
        if not isinstance(handle, Variable):
            raise Refusal("reads a variable that is not known")
        if handle not in self._variables:
            name, array = self._read(handle)
            made = self.constant(array, name)
            self.stored.add(made)
            self._variables[handle] = made
        return self._variables[handle]

    def write(
        self, operator: str, inputs: Sequence[str], name: str, count: int = 1, **attributes: Any
    ) -> list[str]:
        """Write a node; return the names of its outputs."""
        from onnx import helper

        self._written += max(count, 1)
        self._check_count(self._written)
        first = self.unused(name.removeprefix(self.scope))
        outputs = [first, *(self.unused(f"{first}/{k}") for k in range(1, count))]
        node = helper.make_node(operator, inputs, outputs, first, **attributes)
        known = [self.constants.get(tensor) for tensor in inputs]
        small = all(array is not None and _is_small(array) for array in known)
        if small and can_evaluate(operator):
            made = [array for array in fold(node, known, OPSET) if array is not None]
            for output, array in zip(outputs, made, strict=True):
                self._keep(output, array)
        else:
            self.nodes.append(node)
            self.equality.add_node(node)
        return outputs

    def _evaluate(self, frame: Frame, reference: str) -> None:
        """Write the nodes that a tensor depends on, those first that others read."""
        stack = [node_of(reference)]
        entered: set[str] = set()
        while stack:
            node = frame.nodes.get(stack[-1])
            if node is None or node.name in frame.made or node.name in frame.values:
                stack.pop()
                continue
            needed = [node_of(name) for name in node.inputs]
            missing = [n for n in needed if n in frame.nodes
                       and n not in frame.made and n not in frame.values]  # fmt: skip
            if missing and node.name not in entered:
                entered.add(node.name)
                stack += missing
                continue
            stack.pop()
            frame.made[node.name] = self._lowered(frame, node)

    def _lowered(self, frame: Frame, node: Node) -> list[Any]:
        self._read_count += 1
        self._check_count(self._read_count)
        if node.operation == "VarHandleOp":
            return [Variable(node.name)]
        try:
            if node.operation == "Const":
                return [self._stored(node)]
            values = [self._value(frame, name) for name in node.inputs]
            if any(value is None for value in values):
                return []
            made = self._translated(node, values)
        except Refusal as error:
            self.reasons.add(f"{node.operation} {node.name}: {error}")
            return []
        except NpylstmError:
            raise
        except MALFORMED as error:
            what = f"{type(error).__name__}: {one_line(error, 200)}"
            self.reasons.add(f"{node.operation} {node.name}: is malformed ({what})")
            return []
        return made if isinstance(made, list) else [made]

    def _check_count(self, count: int) -> None:
        """End the conversion of a graph that is too large, with the reasons up to here."""
        if count > _MOST_NODES:
            self.reasons.add(f"more than {_MOST_NODES:,} operations, with those of functions")
            self.reasons.raise_if_any()

    def _stored(self, node: Node) -> str:
        array = node.attributes.get("value")
        if not isinstance(array, np.ndarray):
            kind = node.attributes.get("dtype")
            raise Refusal(f"TensorFlow's type {kind} is not supported, only numbers are")
        made = self.constant(array, node.name)
        if not _is_small(array):
            self.stored.add(made)
        return made

    def _translated(self, node: Node, values: list[Any]) -> Any:
        row = self._rows.get(node.operation)
        if row is None:
            raise Refusal("is not supported")
        keeps = node.operation in _WITH_TYPES
        attributes = {
            name: value
            for name, value in node.attributes.items()
            if name not in _NEUTRAL and (keeps or not _is_type(value))
        }
        for name, value in attributes.items():
            if value is None and name not in row.neutral:
                raise Refusal(f"attribute {name}: has no value that is supported")
        given = [values] if node.operation in self._variadic else values
        return translate(row, Call(self, node), given, attributes)

    def _value(self, frame: Frame, reference: str) -> Any:
        name, _, rest = reference.partition(":")
        if name in frame.values:
            return frame.values[name]
        node = frame.nodes.get(name)
        if node is None:
            raise Refusal(f"reads {reference!r:.80}, which nothing makes")
        output, _, place = rest.rpartition(":")
        names = _OUTPUTS.get(node.operation, ())
        at = int(place) if place.isdecimal() else 0
        at = names.index(output) if output in names else at
        made = frame.made.get(name, [])
        return made[at] if at < len(made) else None


def needed(nodes: Sequence[Any], outputs: Iterable[str]) -> list[Any]:
    """Return the nodes of ONNX that outputs are computed from, in order."""
    wanted = {*outputs}
    kept = []
    for node in reversed(nodes):
        if wanted.isdisjoint(node.output):
            continue
        kept.append(node)
        wanted.update(node.input)
        for attribute in node.attribute:  # what the body of a loop reads
            wanted.update(name for inner in attribute.g.node for name in inner.input)
    return kept[::-1]


def _widened(array: Array) -> Array:
    """Return integers as ONNX has sizes and axes, where TensorFlow has 32 bits."""
    return array.astype(np.int64) if array.dtype == np.int32 else array


def _is_small(array: Array) -> bool:
    """Whether an array is of sizes or axes, which are computed at once."""
    return array.dtype.kind in "iub" and array.size <= _MOST_SIZES


def _is_type(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(entry, DataType) for entry in value)
    return isinstance(value, DataType)


class Call:
    """What the function of a row gets: where to write, and the node."""

    def __init__(self, lowering: Lowering, node: Node) -> None:
        self.lowering, self.node = lowering, node

    def emit(self, operator: str, *inputs: str, part: str = "", **attributes: Any) -> str:
        """Write a node with one output; ``part`` names one that computes an intermediate."""
        name = f"{self.node.name}/{part}" if part else self.node.name
        return self.lowering.write(operator, inputs, name, **attributes)[0]

    def constant(self, array: Any) -> str:
        """Return a tensor of these values."""
        return self.lowering.constant(array, f"{self.node.name}/constant")

    def integers(self, value: Any) -> str:
        """Return a tensor of these integers."""
        return self.constant(np.asarray(value, np.int64))

    def known(self, value: Any, what: str) -> Array:
        """Return the values of a constant.

        Raises
        ------
        Refusal
            If it is computed.
        """
        array = self.lowering.constants.get(value) if isinstance(value, str) else None
        if array is None:
            raise Refusal(f"{what}: expected a constant")
        return array

    def axes(self, value: Any, what: str = "axis") -> list[int]:
        """Return axes that are constant."""
        return [int(axis) for axis in np.ravel(self.known(value, what)).tolist()]

    def axis(self, value: Any, what: str = "axis") -> int:
        """Return an axis that is constant."""
        (axis,) = self.axes(value, what)
        return axis
