"""Translating a framework's operation: no argument is ignored, and all reasons come at once."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.operations import NAMES
from npylstm_converters.toolkit.translation import Row, table, translate
from npylstm_converters.torch.rows import ROWS


def scale(graph: str, x: float, factor: float = 1.0, *, shift: float = 0.0) -> tuple[Any, ...]:
    return graph, x, factor, shift


ROW = Row(
    "scale", scale, rename={"input": "x", "by": "factor"}, only={"mode": ("fast", None)},
    neutral=("name",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("positional", "named", "expected"),
    [
        ([2.0], {}, (2.0, 1.0, 0.0)),
        ([], {"input": 2.0, "by": 3.0}, (2.0, 3.0, 0.0)),
        ([2.0, 3.0], {"shift": 4.0, "name": "any", "mode": "fast"}, (2.0, 3.0, 4.0)),
        ([2.0], {"mode": None}, (2.0, 1.0, 0.0)),
    ],
)
def test_arguments_reach_the_function(positional: Any, named: Any, expected: Any) -> None:
    assert translate(ROW, "graph", positional, named) == ("graph", *expected)


@pytest.mark.parametrize(
    ("positional", "named", "reason"),
    [
        ([], {}, "missing a required argument: 'x'"),
        ([1.0, 2.0, 3.0], {}, "has too many arguments: 1.0, 2.0, 3.0"),
        ([1.0], {"x": 2.0}, "is given twice: 'x'"),
        ([], {"x": 2.0, "input": 2.0}, "argument x is given twice"),
        ([1.0], {"mode": "slow"}, "mode='slow' is not supported, only 'fast' or None"),
        ([1.0], {"odd": 1, "mode": 0}, "argument odd=1 is not supported; mode=0 is not supported"),
    ],
)
def test_what_does_not_is_refused(positional: Any, named: Any, reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        translate(ROW, "graph", positional, named)
    assert reason in str(caught.value)


def test_a_name_has_one_row_and_a_function_named_arguments() -> None:
    with pytest.raises(ValueError, match="two rows for 'scale'"):
        table([ROW, ROW])
    for function in (lambda graph, **options: 0, lambda graph, *rest: 0):
        with pytest.raises(ValueError, match="its function takes any argument"):
            table([Row("any", function)])


def test_every_row_of_torch_names_arguments_of_the_schema() -> None:
    """A misspelt name in a row would refuse every call."""
    torch = pytest.importorskip("torch", reason="torch is an optional package")
    for name, row in ROWS.items():
        _, operation, overload = name.split(".")
        packet = getattr(torch.ops.aten, operation, None)
        if packet is None or overload not in packet.overloads():
            continue  # of another version of torch
        arguments = [a.name for a in getattr(packet, overload)._schema.arguments]
        for argument in arguments:
            known = argument in row.only or argument in row.neutral
            ours = row.rename.get(argument, argument)
            assert known or ours in signature(row.function).parameters, (name, argument)
    assert len(ROWS) > 150
    assert len(NAMES) > 60
