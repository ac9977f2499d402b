"""What a recurrent cell does to a block of units, once its products are summed.

Gates lie side by side, a vector each (:mod:`npylstm.engine.packing`), so a block is a few
vectors that never leave the registers. Sigmoids and hyperbolic tangents that are multiplied
share one division: ``i * c~ = above / ((1 + exp(-i)) * below)`` with ``c~ = above / below``.

Each cell comes twice: for whole vectors, and for the narrow blocks of the units left over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.engine.lane_math import one_plus_exp, tanh, tanh_parts
from npylstm.engine.lanes import Lanes, lane_count, narrow_count

__all__ = [
    "gru_narrow", "gru_whole", "lstm_gates_narrow", "lstm_gates_whole", "lstm_narrow",
    "lstm_output_narrow", "lstm_output_whole", "lstm_whole",
]  # fmt: skip

_Cell = Callable[..., Sequence[Lanes]]


def _block(cell: _Cell, reads: Sequence[int], narrow: bool) -> Any:
    """Make the intrinsic of a cell, a function of a tuple of pointers.

    It reads from the first of them, so many vectors one behind another from each, and writes
    what the cell returns to the last ones, a vector each.
    """

    @intrinsic
    def block(typingctx: Any, places: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = places.dtype.dtype
            lanes = narrow_count(number) if narrow else lane_count(number)
            pointers = cgutils.unpack_tuple(builder, args[0])
            vectors = [
                Lanes.load(
                    builder, builder.gep(at, [ir.Constant(ir.IntType(64), k * lanes)]), lanes
                )
                for at, count in zip(pointers, reads, strict=False)
                for k in range(count)
            ]
            made = cell(*vectors)
            for value, at in zip(made, pointers[len(pointers) - len(made) :], strict=True):
                value.store(at)
            return context.get_dummy_value()

        return types.void(places), generate

    return block


def _lstm(i: Lanes, f: Lanes, o: Lanes, candidate: Lanes, c: Lanes) -> Sequence[Lanes]:
    above, below = tanh_parts(candidate)
    c = c / one_plus_exp(-f) + above / (one_plus_exp(-i) * below)
    above, below = tanh_parts(c)
    return c, above / (one_plus_exp(-o) * below)


def _lstm_gates(i: Lanes, f: Lanes, o: Lanes, candidate: Lanes, c: Lanes) -> Sequence[Lanes]:
    """The new cell state, of gates that other functions have activated."""
    return (f * c + i * candidate,)


def _lstm_output(i: Lanes, f: Lanes, o: Lanes, activated: Lanes) -> Sequence[Lanes]:
    return (o * activated,)


def _gru(z: Lanes, r: Lanes, candidate: Lanes, uz: Lanes, ur: Lanes, uc: Lanes, h: Lanes) -> Any:
    """Input parts, recurrent parts, state: the reset gate comes after the product."""
    update = 1.0 / one_plus_exp(-(z + uz))
    new = tanh(candidate + uc / one_plus_exp(-(r + ur)))
    return (update.times_plus(h - new, new),)


# Pointers: gates (4 vectors), c, and where c and h go.
lstm_whole, lstm_narrow = (_block(_lstm, (4, 1), narrow) for narrow in (False, True))
# Gates, c, and where c goes.
lstm_gates_whole, lstm_gates_narrow = (_block(_lstm_gates, (4, 1), n) for n in (False, True))
# Gates with the activated cell state in the candidate's place, and where h goes.
lstm_output_whole, lstm_output_narrow = (_block(_lstm_output, (4,), n) for n in (False, True))
# Gates (3 vectors), their recurrent parts, h, and where h goes.
gru_whole, gru_narrow = (_block(_gru, (3, 3, 1), narrow) for narrow in (False, True))
