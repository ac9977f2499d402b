"""Columns of a program's rows, for each kernel.

A row is integers: one call of a kernel. Column 0 is the address of the kernel. The others depend on
the kernel. Each column contains an offset in one of the three buffers, in elements; an address; a
count or flag; or the bits of a number in float64.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

__all__ = [
    "ACTIVATION", "ADDRESS", "ATTENTION", "CHOICE", "COMBINE", "CONVOLUTION", "COPY", "COUNT",
    "DENSE", "EMBEDDING", "KERNEL", "MASKING", "MATRICES", "MOVE", "NORMALIZE", "NUMBER",
    "ONE_HOT", "PARAMS", "POOL", "RANK", "RECURRENT", "REDUCE", "RESCALE", "SCALE", "SOFTMAX",
    "STATE", "WIDTH", "WORK", "columns",
]  # fmt: skip

KERNEL = 0
WIDTH = 64  # of every row, because a program is one table

PARAMS, WORK, STATE, ADDRESS, COUNT = "params", "work", "state", "address", "count"
NUMBER = "number"
RANK = 6  # axes of the loops over elements


def columns(**holds: str) -> Any:
    """Number the columns of a kernel, from 1 on.

    The result is a named tuple, which kernels read as constants: ``row[DENSE.ROWS]``. The attribute
    ``holds`` of its class maps each column to its type.
    """
    assert len(holds) < WIDTH
    made = namedtuple("Columns", tuple(holds))  # type: ignore[misc]  # names known at run time
    made.holds = holds  # type: ignore[attr-defined]
    return made(*range(1, len(holds) + 1))


def _axes(*names: str) -> dict[str, str]:
    """Return columns for a count of each axis: sizes, or distances between entries."""
    return {f"{name}{axis}": COUNT for name in names for axis in range(RANK)}


_ACTIVATED = {"CODE": COUNT, "CODE_PARAM": PARAMS}
_PRODUCT = {"MULTIPLY": ADDRESS, "W": PARAMS, "BIAS": PARAMS, "VECTORS": COUNT}
# Rounds rows before products with integers (0: no such product), into memory of its own.
_ROUNDED = {"ROUND_ROWS": ADDRESS, "ROUNDED": WORK}
_TENSORS = {"X": WORK, "Y": WORK, "ROWS": COUNT, "IN": COUNT}
_BLOCKS = {"UNITS": COUNT, "SCRATCH": WORK, "BLOCK_ROWS": COUNT}

ACTIVATION = columns(**_TENSORS, **_ACTIVATED)
DENSE = columns(**_TENSORS, **_ACTIVATED, **_PRODUCT, **_ROUNDED, **_BLOCKS)
CONVOLUTION = columns(
    **_TENSORS, **_ACTIVATED, **_PRODUCT, **_BLOCKS, IN_STEPS=COUNT, PADDED_STEPS=COUNT,
    OUT_STEPS=COUNT, BEFORE=COUNT, STRIDE=COUNT, TAPS=COUNT, TAP_STEP=COUNT, TERMS=COUNT,
    GROUPS=COUNT, CHANNELS_FIRST=COUNT,
)  # fmt: skip
EMBEDDING = columns(**_TENSORS, UNITS=COUNT, W=PARAMS, WRONG=WORK, HAS_MASK=COUNT, MASK=WORK)
ONE_HOT = columns(**_TENSORS, INNER=COUNT, ON=NUMBER, OFF=NUMBER, NEGATIVE=COUNT)
# Elements by their distances along axes. Entries of Y are contiguous but for MOVE. An operand is a
# tensor, a parameter (IN_PARAMS), or a number (IS_NUMBER).
MOVE = columns(X=WORK, Y=WORK, W=PARAMS, IN_PARAMS=COUNT, IS_NUMBER=COUNT, VALUE=NUMBER, ROWS=COUNT,
               **_axes("SIZE", "X_AT", "Y_AT"))  # fmt: skip
COMBINE = columns(
    X=WORK, Y=WORK, OTHER=WORK, CODE=COUNT, SCRATCH=WORK, X_IS_NUMBER=COUNT, X_VALUE=NUMBER,
    OTHER_IS_NUMBER=COUNT, OTHER_VALUE=NUMBER, W=PARAMS, OTHER_IN_PARAMS=COUNT, ROWS=COUNT,
    **_axes("SIZE", "X_AT", "OTHER_AT"),
)  # fmt: skip
CHOICE = columns(
    X=WORK, Y=WORK, YES=WORK, NO=WORK, YES_IS_NUMBER=COUNT, YES_VALUE=NUMBER, NO_IS_NUMBER=COUNT,
    NO_VALUE=NUMBER, ROWS=COUNT, **_axes("SIZE", "X_AT", "YES_AT", "NO_AT"),
)  # fmt: skip
RESCALE = columns(X=WORK, Y=WORK, SIZE=COUNT, SCALE=NUMBER, OFFSET=NUMBER)
# Factor and shift of each entry of an axis, each in two parts.
SCALE = columns(X=WORK, Y=WORK, ROWS=COUNT, SIZE=COUNT, INNER=COUNT, FACTOR=PARAMS,
                FACTOR_REST=PARAMS, SHIFT=PARAMS, SHIFT_REST=PARAMS)  # fmt: skip
# Entries along an axis, for every row, and INNER columns of them side by side.
REDUCE = columns(**_TENSORS, CODE=COUNT, SIZE=COUNT, INNER=COUNT, DIVISOR=COUNT)
SOFTMAX = columns(**_TENSORS, SIZE=COUNT, INNER=COUNT, LOGARITHM=COUNT)
NORMALIZE = columns(**_TENSORS, CODE=COUNT, SIZE=COUNT, EPSILON=NUMBER, GAMMA=PARAMS, BETA=PARAMS)
POOL = columns(
    **_TENSORS, CODE=COUNT, SIZE=COUNT, STRIDE=COUNT, DILATION=COUNT, BEFORE=COUNT, AFTER=COUNT,
    STEPS=COUNT, OUT_STEPS=COUNT, COUNT_PADDING=COUNT, CHANNELS_FIRST=COUNT,
)  # fmt: skip
MASKING = columns(**_TENSORS, VALUE=NUMBER, MASK=WORK)
COPY = columns(FROM=COUNT, TO=COUNT, SIZE=COUNT)  # offsets in two different buffers
RECURRENT = columns(
    **_TENSORS, **_ACTIVATED, **_PRODUCT, **_ROUNDED, **_BLOCKS, RECURRENT_CODE=COUNT,
    RECURRENT_CODE_PARAM=PARAMS, STEPS=COUNT, X_ROW=COUNT, X_STEP=COUNT, Y_ROW=COUNT, Y_STEP=COUNT,
    REVERSE=COUNT, IN_ORDER=COUNT, MASKED=COUNT, MASK=WORK, ORDER=WORK, ZERO_OUTPUT=COUNT,
    BLOCK_STEPS=COUNT, STATE=STATE, CELL_STATE=STATE, SIZE=COUNT, PADDED=COUNT, Z_ROW=COUNT,
    # The input's part of the gates for every id, if the input is ids: IN is their number, UNKNOWN
    # the entry for what is no id.
    TABLE=ADDRESS, UNKNOWN=COUNT, X_PADDED=COUNT,
    U=PARAMS, RECURRENT_BIAS=PARAMS, RECURRENT_VECTORS=COUNT, U_H=PARAMS,
    PROJECTION=PARAMS, PROJECTION_BIAS=PARAMS, PROJECTION_VECTORS=COUNT,
    # Whether product and cell of a single row are computed together, and by which other kernel.
    FUSED=COUNT, LSTM_ROW=ADDRESS,
    # The units that a thread computes, in blocks and vectors; the divisor of both in each part (0:
    # threads may not share units); and the threads' barrier.
    FIRST_BLOCK=COUNT, END_BLOCK=COUNT, FIRST_VECTOR=COUNT, END_VECTOR=COUNT, SHARED_BLOCKS=COUNT,
    SHARED_VECTORS=COUNT, THREAD=COUNT, THREADS=COUNT, BARRIER=ADDRESS, YIELD_THREAD=ADDRESS,
)  # fmt: skip
# Of one head: QUERIES, STEPS, IN (features of queries and keys), UNITS (of values).
ATTENTION = columns(
    X=WORK, Y=WORK, KEYS=WORK, VALUES=WORK, SCORES=WORK, HAS_SCORES=COUNT, MULTIPLY=ADDRESS,
    ROWS=COUNT, HEADS=COUNT, QUERIES=COUNT, STEPS=COUNT, IN=COUNT, UNITS=COUNT, BLOCK_ROWS=COUNT,
    SCRATCH=WORK, IS_DOT=COUNT, FACTOR=PARAMS, TERM_FACTORS=PARAMS, TERM_STEP=COUNT,
    INNER_FACTOR=PARAMS, MASKED=COUNT, QUERY_MASK=WORK, VALUE_MASK=WORK, KEY_MASK=WORK,
    PAIR_MASK=WORK, HAS_QUERY_MASK=COUNT, HAS_VALUE_MASK=COUNT, HAS_KEY_MASK=COUNT,
    HAS_PAIR_MASK=COUNT, ZERO_QUERIES=COUNT, CAUSAL=COUNT, WINDOW=COUNT, RULE=COUNT,
    IN_FLOAT32=COUNT, HAS_PROJECTIONS=COUNT, PROJECTED=WORK, QUERY_IN=COUNT, KEY_IN=COUNT,
    VALUE_IN=COUNT, OUT=COUNT, QUERY_W=PARAMS, QUERY_BIAS=PARAMS, KEY_W=PARAMS, KEY_BIAS=PARAMS,
    VALUE_W=PARAMS, VALUE_BIAS=PARAMS, OUT_W=PARAMS, OUT_BIAS=PARAMS,
)  # fmt: skip
# Pairs of matrices (MATRIX_ROWS, TERMS) and (TERMS, COLUMNS), along axes.
MATRICES = columns(
    X=WORK, OTHER=WORK, Y=WORK, MULTIPLY=ADDRESS, SCRATCH=WORK, BLOCK_ROWS=COUNT, MATRIX_ROWS=COUNT,
    TERMS=COUNT, COLUMNS=COUNT, X_ROW=COUNT, X_TERM=COUNT, OTHER_TERM=COUNT, OTHER_COLUMN=COUNT,
    Y_ROW=COUNT, NORMALIZE=COUNT, EPSILON=NUMBER, ROWS=COUNT,
    **_axes("SIZE", "X_AT", "OTHER_AT", "Y_AT"),
)  # fmt: skip
