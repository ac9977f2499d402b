"""Sizes of the symbols in shapes."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npylstm.ops.shapes import BATCH, Shape, factors, holds_batch

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]

# Sizes of symbols: no two alike in one row, so that axes cannot be taken for one another.
SIZES: tuple[dict[str, int], ...] = (
    {"batch": 3, "steps": 5, "other": 7},
    {"batch": 1, "steps": 6, "other": 4},
    {"batch": 4, "steps": 9, "other": 8},
)

# More for kernels, which go through rows and units in blocks.
KERNEL_SIZES: tuple[dict[str, int], ...] = (
    {"batch": 17, "steps": 1, "other": 2},
    {"batch": 2, "steps": 33, "other": 5},
)

# --- Sizes ---------------------------------------------------------------------------------------

_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
}


def value_of(dim: int | str, sizes: Sizes) -> int:
    """Compute a size: ``batch*steps``, ``steps-2``, ``(steps+0-3)//2+1``, ``steps[1:-1:2]``."""
    if isinstance(dim, int):
        return dim
    taken = re.fullmatch(r"(\w+)\[(-?\d*):(-?\d*):(-?\d*)\]", dim)
    if taken:
        start, stop, step = (int(v) if v else None for v in taken.groups()[1:])
        return len(range(sizes[taken[1]])[start:stop:step])

    def compute(node: ast.AST) -> int:
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](compute(node.left), compute(node.right))
        if isinstance(node, ast.UnaryOp):
            return -compute(node.operand)
        if isinstance(node, ast.Name):
            return sizes[node.id]
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, int)
        return node.value

    text = re.sub(r"(?<=[\w)])\.(?=[\w(])", "*", dim)
    return compute(ast.parse(text, mode="eval").body)


def concrete(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """Put numbers for symbols."""
    return tuple(value_of(dim, sizes) for dim in shape)


def sample_numbers(shape: Shape, sizes: Sizes) -> Array | None:
    """Say of every entry of a tensor to which sample it belongs; None if it has no samples.

    An axis that is merged of the batch and others, row-major, is taken apart.
    """
    if not any(map(holds_batch, shape)):
        return None
    axes = [part for dim in shape for part in (factors([dim]) if holds_batch(dim) else [dim])]
    lengths = [value_of(part, sizes) for part in axes]
    at = axes.index(BATCH)
    along = [lengths[at] if k == at else 1 for k in range(len(axes))]
    numbers = np.broadcast_to(np.arange(lengths[at]).reshape(along), lengths)
    return numbers.reshape(concrete(shape, sizes))
