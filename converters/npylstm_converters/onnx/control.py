"""Operators with graphs inside: If."""

from __future__ import annotations

from typing import Any

from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.values import Ref, Value, flag

__all__ = ["if_"]


def if_(call: Any, cond: Value, *, then_branch: Any, else_branch: Any) -> list[Value | None]:
    """Translate the branch that a condition chooses; it must be known before the model runs."""
    if isinstance(cond, Ref):
        raise Refusal(
            "its condition depends on the values of an input; if it depends on one that is always "
            "the same, fix that: --set NAME=VALUE"
        )
    branch = then_branch if flag(cond) else else_branch
    scope = call.translator.subgraph(branch, call.scope)
    return [scope.get(value.name) for value in branch.output]
