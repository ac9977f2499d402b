"""Codes of operations by their names, for the kernels that compute several."""

from __future__ import annotations

__all__ = ["CODES", "NORMALIZATIONS", "POWER", "REDUCTIONS"]

POWER = 17

# By the names of npylstm.ops.arithmetic.Arithmetic, and the activation with learned slopes.
CODES = {
    "add": 1, "subtract": 2, "multiply": 3, "divide": 4, "maximum": 5, "minimum": 6, "equal": 7,
    "not_equal": 8, "less": 9, "less_equal": 10, "greater": 11, "greater_equal": 12,
    "logical_and": 13, "logical_or": 14, "logical_xor": 15, "prelu": 16, "power": POWER,
}  # fmt: skip

# By the names of npylstm.ops.arithmetic.Reduce.
REDUCTIONS = {
    "mean": 1, "sum": 2, "prod": 3, "norm": 4, "l1": 5, "sum_square": 6, "any": 7, "all": 8,
    "max": 9, "min": 10, "var": 11, "std": 12,
}  # fmt: skip

# Of npylstm.ops.normalization; the second does not subtract the mean.
NORMALIZATIONS = {"layer": 1, "scaled": 2, "rms": 3}
