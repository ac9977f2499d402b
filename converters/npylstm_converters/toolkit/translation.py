"""Translate a framework's operations: one row per name; unsupported arguments are errors.

The framework's arguments are passed to the function of a row by parameter name. An argument that
is not a parameter of the function is an error, so none is ignored by accident.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm_converters.errors import Refusal

__all__ = ["Graph", "Row", "table", "translate"]


class Graph(Protocol):
    """The graph that operations are added to; the importer defines the type of its tensors."""

    def tensor(self, value: Any) -> Any:
        """Return an argument as a tensor of the graph.

        Raises
        ------
        Refusal
            If it is not a tensor.
        """
        ...

    def number(self, value: Any) -> float | None:
        """Return an argument that is a number; None if it is a tensor."""
        ...

    def shape(self, tensor: Any) -> Shape:
        """Return the shape of a tensor, with symbols."""
        ...

    def add(self, operation: Operation, *tensors: Any, part: str = "") -> Any:
        """Add an operation with one output; ``part`` names one that computes an intermediate."""
        ...


class Row(NamedTuple):
    """The translation of one operation of a framework.

    Attributes
    ----------
    name
        The framework's name of the operation.
    function
        Takes a graph and the arguments; returns the tensor.
    rename
        Names of the function's parameters, by the framework's.
    only
        Arguments that are supported with these values only.
    neutral
        Arguments that change no number in inference.
    """

    name: str
    function: Callable[..., Any]
    rename: Mapping[str, str] = {}
    only: Mapping[str, tuple[Any, ...]] = {}
    neutral: tuple[str, ...] = ()


def table(rows: Iterable[Row]) -> dict[str, Row]:
    """Index rows by name.

    Raises
    ------
    ValueError
        If a name occurs twice, or a function has unnamed arguments.
    """
    indexed: dict[str, Row] = {}
    for row in rows:
        if row.name in indexed:
            raise ValueError(f"two rows for {row.name!r}")
        kinds = {p.kind for p in inspect.signature(row.function).parameters.values()}
        if kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}:
            raise ValueError(f"{row.name}: its function takes any argument")
        indexed[row.name] = row
    return indexed


def translate(row: Row, graph: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """Add an operation to a graph.

    Parameters
    ----------
    row
        The translation.
    graph
        The first argument of its function.
    positional, named
        The framework's arguments.

    Raises
    ------
    Refusal
        If arguments are not supported; the message lists all of them.

    """
    signature = inspect.signature(row.function)
    passed: dict[str, Any] = {}
    reasons = []
    for name, value in named.items():
        ours = row.rename.get(name, name)
        if name in row.neutral:
            continue
        if name in row.only:
            if not any(value is v or value == v for v in row.only[name]):
                allowed = " or ".join(map(repr, row.only[name]))
                reasons.append(f"{name}={value!r:.60} is not supported, only {allowed}")
        elif ours in passed:
            reasons.append(f"argument {ours} is given twice")
        elif ours not in signature.parameters:
            reasons.append(f"argument {name}={value!r:.60} is not supported")
        else:
            passed[ours] = value
    if not reasons:
        try:
            signature.bind(graph, *positional, **passed)
        except TypeError as error:
            reasons.append(_readable(str(error), positional))
    if reasons:
        raise Refusal("; ".join(reasons))
    return row.function(graph, *positional, **passed)


def _readable(error: str, positional: Sequence[Any]) -> str:
    if error.startswith("too many positional"):
        return f"has too many arguments: {', '.join(f'{v!r:.60}' for v in positional)}"
    if error.startswith("multiple values"):
        return error.replace("multiple values for argument", "is given twice:")
    return error
