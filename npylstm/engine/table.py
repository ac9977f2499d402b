"""Columns of a program: one row of integers per operation.

Places are offsets in elements, of the parameters (``CODE_PARAM``, ``W``, ``BIAS``, ...), of the
state (``STATE``, ``CELL_STATE``) or of the work buffer. ``OP`` and ``MULTIPLY`` are addresses of
kernels.
"""

from __future__ import annotations

# All operations.
OP, X, Y, ROWS, IN, UNITS, CODE, CODE_PARAM = range(8)
# Products: packed weights, how many vectors their columns fill, and what does them.
MULTIPLY, W, BIAS, VECTORS, SCRATCH, BLOCK_ROWS = range(8, 14)
# Recurrent layers. From FIRST_BLOCK on: what of the units a thread computes; of how many blocks and
# vectors the parts are that a team of threads may share (0: it may not), and how it meets.
(STEPS, X_ROW, X_STEP, Y_ROW, Y_STEP, REVERSE, IN_ORDER, MASKED, MASK, ZERO_OUTPUT, BLOCK_STEPS,
 RECURRENT_CODE, RECURRENT_CODE_PARAM, STATE, CELL_STATE, SIZE, PADDED, Z_ROW, X_PADDED, U,
 RECURRENT_BIAS, RECURRENT_VECTORS, U_H, PROJECTION, PROJECTION_BIAS, PROJECTION_VECTORS,
 FIRST_BLOCK, END_BLOCK, FIRST_VECTOR, END_VECTOR, SHARED_BLOCKS, SHARED_VECTORS, MEMBER, MEMBERS,
 MEETING, GIVE_WAY,
) = range(14, 50)  # fmt: skip
# Convolutions.
(IN_STEPS, PADDED_STEPS, OUT_STEPS, BEFORE, STRIDE, TAPS, TAP_STEP, TERMS, GROUPS, CHANNELS_FIRST,
) = range(14, 24)  # fmt: skip
# Embeddings: where a mask goes, if one is made.
MAKES_MASK, MADE_MASK = range(14, 16)
WIDTH = 50
