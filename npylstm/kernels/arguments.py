"""Columns of a program's rows, for each kernel.

A row is integers: one call of a kernel. Column 0 is the address of the kernel. The others depend on
the kernel. Each column contains an offset in one of the three buffers, in elements; an address; or
a count or flag.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

__all__ = [
    "ACTIVATION", "ADDRESS", "CONVOLUTION", "COPY", "COUNT", "DENSE", "EMBEDDING", "KERNEL",
    "PARAMS", "RECURRENT", "REPEAT", "STATE", "WIDTH", "WORK", "columns",
]  # fmt: skip

KERNEL = 0
WIDTH = 50  # of every row, because a program is one table

PARAMS, WORK, STATE, ADDRESS, COUNT = "params", "work", "state", "address", "count"


def columns(**holds: str) -> Any:
    """Number the columns of a kernel, from 1 on.

    The result is a named tuple, which kernels read as constants: ``row[DENSE.ROWS]``. The attribute
    ``holds`` of its class maps each column to its type.
    """
    made = namedtuple("Columns", tuple(holds))  # type: ignore[misc]  # names known at run time
    made.holds = holds  # type: ignore[attr-defined]
    return made(*range(1, len(holds) + 1))


_ACTIVATED = {"CODE": COUNT, "CODE_PARAM": PARAMS}
_PRODUCT = {"MULTIPLY": ADDRESS, "W": PARAMS, "BIAS": PARAMS, "VECTORS": COUNT}
_TENSORS = {"X": WORK, "Y": WORK, "ROWS": COUNT, "IN": COUNT}
_BLOCKS = {"UNITS": COUNT, "SCRATCH": WORK, "BLOCK_ROWS": COUNT}

ACTIVATION = columns(**_TENSORS, **_ACTIVATED)
DENSE = columns(**_TENSORS, **_ACTIVATED, **_PRODUCT, **_BLOCKS)
CONVOLUTION = columns(
    **_TENSORS, **_ACTIVATED, **_PRODUCT, **_BLOCKS, IN_STEPS=COUNT, PADDED_STEPS=COUNT,
    OUT_STEPS=COUNT, BEFORE=COUNT, STRIDE=COUNT, TAPS=COUNT, TAP_STEP=COUNT, TERMS=COUNT,
    GROUPS=COUNT, CHANNELS_FIRST=COUNT,
)  # fmt: skip
EMBEDDING = columns(**_TENSORS, UNITS=COUNT, W=PARAMS, WRONG=WORK, HAS_MASK=COUNT, MASK=WORK)
REPEAT = columns(**_TENSORS, TIMES=COUNT)
COPY = columns(FROM=COUNT, TO=COUNT, SIZE=COUNT)  # offsets in two different buffers
RECURRENT = columns(
    **_TENSORS, **_ACTIVATED, **_PRODUCT, **_BLOCKS, RECURRENT_CODE=COUNT,
    RECURRENT_CODE_PARAM=PARAMS, STEPS=COUNT, X_ROW=COUNT, X_STEP=COUNT, Y_ROW=COUNT, Y_STEP=COUNT,
    REVERSE=COUNT, IN_ORDER=COUNT, MASKED=COUNT, MASK=WORK, ZERO_OUTPUT=COUNT, BLOCK_STEPS=COUNT,
    STATE=STATE, CELL_STATE=STATE, SIZE=COUNT, PADDED=COUNT, Z_ROW=COUNT, X_PADDED=COUNT, U=PARAMS,
    RECURRENT_BIAS=PARAMS, RECURRENT_VECTORS=COUNT, U_H=PARAMS, PROJECTION=PARAMS,
    PROJECTION_BIAS=PARAMS, PROJECTION_VECTORS=COUNT,
    # The units that a thread computes, in blocks and vectors; the divisor of both in each part (0:
    # threads may not share units); and the threads' barrier.
    FIRST_BLOCK=COUNT, END_BLOCK=COUNT, FIRST_VECTOR=COUNT, END_VECTOR=COUNT, SHARED_BLOCKS=COUNT,
    SHARED_VECTORS=COUNT, THREAD=COUNT, THREADS=COUNT, BARRIER=ADDRESS, YIELD_THREAD=ADDRESS,
)  # fmt: skip
