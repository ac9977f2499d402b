"""Codes of elementwise operations of two operands, for their kernel."""

from __future__ import annotations

__all__ = ["CODES", "POWER"]

POWER = 17

# By the names of npylstm.ops.arithmetic.Arithmetic, and the activation with learned slopes.
CODES = {
    "add": 1, "subtract": 2, "multiply": 3, "divide": 4, "maximum": 5, "minimum": 6, "equal": 7,
    "not_equal": 8, "less": 9, "less_equal": 10, "greater": 11, "greater_equal": 12,
    "logical_and": 13, "logical_or": 14, "logical_xor": 15, "prelu": 16, "power": POWER,
}  # fmt: skip
