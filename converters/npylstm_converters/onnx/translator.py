"""Translate the nodes of an ONNX graph, one after another."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from npylstm import NpylstmError
from npylstm_converters.errors import MALFORMED, Reasons, Refusal
from npylstm_converters.onnx.attributes import attributes_of, constant_of
from npylstm_converters.onnx.counters import Condition, Counter, fold_counter
from npylstm_converters.onnx.folding import can_evaluate, can_fold, fold, fold_sizes
from npylstm_converters.onnx.graph import OnnxGraph, readable
from npylstm_converters.onnx.reading import initializers
from npylstm_converters.onnx.rows import ROWS, VARIADIC
from npylstm_converters.onnx.sizes import Undecided
from npylstm_converters.onnx.values import ConstantTensor, Sizes, Value
from npylstm_converters.toolkit.runners import one_line
from npylstm_converters.toolkit.translation import Row, translate

__all__ = ["Scope", "Translator"]

# Domains that exporters write for operators of the standard.
_STANDARD = ("", "ai.onnx")

Scope = MutableMapping[str, Any]  # values by name; None where a node was refused


class Translator:
    """Translates nodes into operations of a graph.

    Parameters
    ----------
    graph
        The graph that operations are added to.
    opset
        The version of the operator set.
    reasons
        Collects why nodes are refused.
    outputs
        Names of the graph's outputs: names of the layers that make them.
    """

    def __init__(
        self, graph: OnnxGraph, opset: int, reasons: Reasons, outputs: Sequence[str] = ()
    ) -> None:
        self.graph, self.opset, self.reasons = graph, opset, reasons
        self._outputs = {*outputs}
        self._batch_axes: dict[str, int] = {}

    def run(self, nodes: Sequence[Any], scope: Scope) -> None:
        """Translate nodes in order; the values that they make are added to the scope."""
        self._batch_axes |= _batch_axes(nodes)
        for node in _in_order(nodes):
            label = f"{node.op_type} {node.name or ', '.join(filter(None, node.output))}"
            try:
                values = [self._value(name, scope) for name in node.input]
                made = self._translate(node, values, scope)
            except _Unknown:
                made = [None] * len(node.output)
            except Undecided as error:
                self.reasons.add(f"{label}: {error}{self._how_to_fix(error)}")
                made = [None] * len(node.output)
            except (Refusal, NpylstmError) as error:
                self.reasons.add(f"{label}: {error}")
                made = [None] * len(node.output)
            except MALFORMED as error:
                self.reasons.add(f"{label}: is malformed: {one_line(error, 200)}")
                made = [None] * len(node.output)
            scope.update(zip(node.output, made, strict=False))

    def _how_to_fix(self, error: Undecided) -> str:
        """Return the options that fix the sizes of a comparison, if the file has names for them."""
        names = [name for own, name in self.graph.file_names.items() if own in error.symbols]
        return f"; {' '.join(f'--set {name}=NUMBER' for name in names)} fixes it" if names else ""

    def subgraph(self, graph: Any, scope: Scope) -> Scope:
        """Translate the nodes of a graph inside a node; return the values of its tensors."""
        own: dict[str, Any] = {n: ConstantTensor(a, (n,)) for n, a in initializers(graph).items()}
        inner: Scope = ChainMap(own, scope)
        self.run(graph.node, inner)
        return inner

    def inside(self, graph: OnnxGraph) -> Translator:
        """Return a translator for the graph of one step of a loop."""
        return Translator(graph, self.opset, self.reasons)

    def _value(self, name: str, scope: Scope) -> Any:
        if not name:
            return None
        if name not in scope:
            raise Refusal(f"reads {name!r}, which no node makes")
        value = scope[name]
        if value is None:
            raise _Unknown
        return value

    def _translate(
        self, node: Any, values: list[Value | None], scope: Scope
    ) -> Sequence[Value | None]:
        operator = node.op_type
        if node.domain not in _STANDARD:
            raise Refusal(f"operators of {node.domain} are not supported")
        attributes = attributes_of(node)
        there = [v for v in values if v is not None]
        known = all(isinstance(v, ConstantTensor) for v in there) and not _subgraphs(node)
        if operator == "Constant":
            return [constant_of(attributes)]
        if any(isinstance(v, (Counter, Condition)) for v in there):
            return [self._with_counter(operator, attributes, there)]
        if known and can_evaluate(operator):
            arrays = [v.array if isinstance(v, ConstantTensor) else None for v in values]
            sources = tuple(s for v in there if isinstance(v, ConstantTensor) for s in v.sources)
            made = fold(node, arrays, self.opset)
            return [None if a is None else ConstantTensor(a, sources) for a in made]
        sizes = [v for v in there if isinstance(v, (ConstantTensor, Sizes))]
        if len(sizes) == len(there) and can_fold(operator, sizes, attributes.get("to")):
            return [fold_sizes(operator, attributes, sizes)]
        row = self._row(operator)
        outputs = [name for name in node.output if name]
        chosen = [name for name in outputs if name in self._outputs]
        self.graph.expected_batch_axis = self._batch_axes.get(node.output[0])
        self.graph.name = readable((chosen or [node.name or outputs[0]])[0])
        while values and values[-1] is None:
            values.pop()
        given = [values] if operator in VARIADIC else values
        result = translate(row, Call(self, node, scope), given, attributes)
        return result if isinstance(result, (list, tuple)) else [result]

    def _with_counter(
        self, operator: str, attributes: Mapping[str, Any], values: Sequence[Any]
    ) -> Any:
        """Translate a node that reads the number of the iteration."""
        folded = fold_counter(operator, values)
        if folded is not None:
            return folded
        if operator == "Gather" and isinstance(values[1], Counter):
            graph: Any = self.graph
            return graph.step_of(values[0], values[1], attributes.get("axis", 0))
        raise Refusal("computes with the number of the iteration, which is not supported")

    def _row(self, operator: str) -> Row:
        versions = ROWS.get(operator)
        if versions is None:
            raise Refusal("is not supported")
        fitting = [since for since in versions if since <= self.opset]
        if not fitting:
            raise Refusal(f"is not supported in version {self.opset} of the operator set")
        return versions[max(fitting)]


class Call:
    """What the function of a row gets: the graph, the node, and the translator for subgraphs."""

    def __init__(self, translator: Translator, node: Any, scope: Scope) -> None:
        self.translator, self.node, self.scope = translator, node, scope
        self.graph = translator.graph

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graph, name)

    @property
    def outputs(self) -> tuple[bool, ...]:
        """Whether each output of the node is used."""
        return tuple(bool(name) for name in self.node.output)


def _in_order(nodes: Sequence[Any]) -> list[Any]:
    """Return nodes so that each is after those whose outputs it reads; else in their order."""
    makers = {name: k for k, node in enumerate(nodes) for name in node.output}
    ordered: list[Any] = []
    done: set[int] = set()
    for first in range(len(nodes)):
        stack = [first]
        while stack:
            k = stack[-1]
            needed = {makers[name] for name in _reads(nodes[k]) if name in makers}
            missing = sorted(needed - done - {*stack}, reverse=True)
            if missing and k not in done:
                stack += missing
                continue
            stack.pop()
            if k not in done:
                done.add(k)
                ordered.append(nodes[k])
    return ordered


def _reads(node: Any) -> set[str]:
    """Return the names of the tensors that a node reads, also in graphs inside it."""
    names = {*node.input}
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names |= _reads(inner)
    return names


def _batch_axes(nodes: Sequence[Any]) -> dict[str, int]:
    """Return the axis of the batch of tensors that recurrent operators read."""
    axes: dict[str, int] = {}
    for node in nodes:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
            axes |= {
                name: 0 if layout else 1 for k, name in enumerate(node.input) if k in (0, 5, 6)
            }
    return axes


class _Unknown(Exception):
    """An input comes from a node that was refused."""


def _subgraphs(node: Any) -> bool:
    return any(attribute.HasField("g") for attribute in node.attribute)
