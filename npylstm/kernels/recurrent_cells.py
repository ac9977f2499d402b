"""Recurrent cells for a block of units, from the sums of the gates.

Gates are side by side (:mod:`npylstm.kernels.packing`), so a block is a few vectors in registers. A
full block has one vector per gate. In the narrow blocks of the remaining units the gates are
gathered from shared vectors. A product of sigmoid and tanh needs one division:
``i * c~ = above / ((1 + exp(-i)) * below)`` with ``c~ = above / below``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.packing import PANEL
from npylstm.kernels.simd import Lanes, lane_count, narrow_count
from npylstm.kernels.simd_math import one_plus_exp, one_plus_exp_times, tanh, tanh_parts
from npylstm.kernels.sums import Sums, choose, constant

__all__ = [
    "gru_full", "gru_narrow", "lstm_full", "lstm_narrow", "lstm_of_gates", "lstm_of_narrow_gates",
    "lstm_row", "lstm_row_narrow",
]  # fmt: skip


def _lstm(i: Lanes, f: Lanes, o: Lanes, candidate: Lanes, c: Lanes) -> Sequence[Lanes]:
    """Return ``c`` and ``h`` from the four gates' sums and the old ``c``.

    A ``c`` too small for a normal number is zero: processors compute with such numbers slowly, and
    in silence a state may have them for thousands of steps.
    """
    above, below = tanh_parts(candidate)
    c = c / one_plus_exp(-f) + above / one_plus_exp_times(-i, below)
    c = c.flushed()
    above, below = tanh_parts(c)
    return c, above / one_plus_exp_times(-o, below)


def _gru(z: Lanes, r: Lanes, candidate: Lanes, uz: Lanes, ur: Lanes, uc: Lanes, h: Lanes) -> Any:
    """Return ``h`` from the input's parts, the recurrent parts and the old ``h``."""
    update = 1.0 / one_plus_exp(-(z + uz))
    new = tanh(candidate + uc / one_plus_exp(-(r + ur)))
    return (update.fma(h - new, new),)


def _most_parts(number: Any) -> int:
    return lane_count(number) // narrow_count(number)


def _vectors(number: Any, gates: int, parts: int) -> int:
    """Return the number of vectors for the gates of these narrow blocks."""
    return -(-parts * narrow_count(number) * gates // lane_count(number))


def _load(builder: Any, at: Any, count: int) -> list[Lanes]:
    """Load consecutive vectors."""
    lanes = lane_count(at.type.pointee)
    return [
        Lanes.load(builder, builder.gep(at, [constant(k * lanes)]), lanes) for k in range(count)
    ]


def _gather(vectors: list[Lanes], gates: int, parts: int, narrow: int) -> list[Lanes]:
    """Gather the gates of narrow blocks into one vector for each gate."""
    builder = vectors[0].builder
    whole = vectors
    while len(whole) > 1:
        pairs = [whole[k : k + 2] for k in range(0, len(whole), 2)]
        whole = [_joined(*pair) for pair in pairs]
    size = 1 << (parts * narrow - 1).bit_length()
    made = []
    for gate in range(gates):
        places = [(p * gates + gate) * narrow + k for p in range(parts) for k in range(narrow)]
        places += places[:1] * (size - len(places))
        made.append(_shuffled(builder, whole[0].value, whole[0].value, places))
    return made


def _joined(a: Lanes, b: Lanes | None = None) -> Lanes:
    count = a.value.type.count
    other = a if b is None or b.value.type.count != count else b
    return _shuffled(a.builder, a.value, other.value, list(range(2 * count)))


def _shuffled(builder: Any, a: Any, b: Any, places: list[int]) -> Lanes:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
    return Lanes(builder, builder.shuffle_vector(a, b, mask))


def _full(cell: Callable[..., Sequence[Lanes]], reads: Sequence[int]) -> Any:
    """Return the intrinsic of a cell for a full block, a function of a tuple of pointers.

    It loads ``reads`` consecutive vectors from the first pointers, and stores the results of the
    cell at the last pointers, one vector each.
    """

    @intrinsic
    def block(typingctx: Any, places: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointers = cgutils.unpack_tuple(builder, args[0])
            vectors = [
                vector
                for at, count in zip(pointers, reads, strict=False)
                for vector in _load(builder, at, count)
            ]
            _store(cell(*vectors), pointers)
            return context.get_dummy_value()

        return types.void(places), generate

    return block


def _narrow(cell: Callable[..., Sequence[Lanes]], reads: Sequence[int]) -> Any:
    """Return the intrinsic of a cell for the narrow blocks after the full ones.

    As :func:`_full`; where it reads several vectors, it reads the gates of all narrow blocks.
    """

    @intrinsic
    def block(typingctx: Any, places: Any, parts: Any) -> Any:
        number = places.dtype.dtype

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointers = cgutils.unpack_tuple(builder, args[0])
            narrow = narrow_count(number)

            def build(parts: int) -> None:
                vectors: list[Lanes] = []
                for at, count in zip(pointers, reads, strict=False):
                    if count > 1:
                        gates = _load(builder, at, _vectors(number, count, parts))
                        vectors += _gather(gates, count, parts, narrow)
                    else:
                        size = vectors[0].value.type.count
                        vectors.append(Lanes.load(builder, at, size))
                _store(cell(*vectors), pointers)

            choose(builder, args[1], range(1, _most_parts(number) + 1), build)
            return context.get_dummy_value()

        return types.void(places, types.int64), generate

    return block


def _store(made: Sequence[Lanes], pointers: list[Any]) -> None:
    for value, at in zip(made, pointers[len(pointers) - len(made) :], strict=True):
        value.store(at)


# Pointers: gates (4 vectors), c, and the targets of c and h.
lstm_full, lstm_narrow = _full(_lstm, (4, 1)), _narrow(_lstm, (4, 1))
# Gates (3 vectors), their recurrent parts, h, and the target of h.
gru_full, gru_narrow = _full(_gru, (3, 3, 1)), _narrow(_gru, (3, 3, 1))


def lstm_of_gates(builder: Any, gates: list[Lanes], c: Any, new: Any) -> None:
    """Generate the cell of a full block: pointers to its cell state, and to its hidden state."""
    _store(_lstm(*[*gates, Lanes.load(builder, c, gates[0].value.type.count)]), [c, new])


def lstm_of_narrow_gates(sums: list[Lanes], parts: int, narrow: int, c: Any, new: Any) -> None:
    """Generate the cell of narrow blocks, whose gates share vectors."""
    gates = _gather(sums, PANEL, parts, narrow)
    lstm_of_gates(sums[0].builder, gates, c, new)


@intrinsic
def lstm_row(
    typingctx: Any, z: Any, h: Any, terms: Any, segment: Any, w: Any, rows: Any, c: Any, new: Any,
    panels: Any,
) -> Any:  # fmt: skip
    """One row of one or two full blocks: the recurrent product and the cell, in registers.

    ``rows`` is the number of rows of floats or words in a panel of ``w``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, h, terms, segment, w, rows, c, new, panels = args
        lanes = lane_count(z.type.pointee)

        def build(count: int) -> None:
            size = builder.mul(rows, constant(PANEL * lanes))
            weights = [
                (builder.gep(w, [builder.mul(size, constant(k))]), PANEL) for k in range(count)
            ]
            start = _load(builder, z, count * PANEL)
            sums = Sums(builder, [h], weights).segment_by_segment(start, terms, segment)
            for k in range(count):
                place = [constant(k * lanes)]
                at, to = builder.gep(c, place), builder.gep(new, place)
                lstm_of_gates(builder, sums[k * PANEL : (k + 1) * PANEL], at, to)

        choose(builder, panels, range(1, 3), build)
        return context.get_dummy_value()

    n = types.int64
    return types.void(z, z, n, n, w, n, z, z, n), generate


@intrinsic
def lstm_row_narrow(
    typingctx: Any, z: Any, h: Any, terms: Any, segment: Any, w: Any, c: Any, new: Any, parts: Any
) -> Any:
    """As :func:`lstm_row`, for the narrow blocks."""
    number = z.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, h, terms, segment, w, c, new, parts = args

        def build(parts: int) -> None:
            count = _vectors(number, PANEL, parts)
            start = _load(builder, z, count)
            sums = Sums(builder, [h], [(w, count)]).segment_by_segment(start, terms, segment)
            lstm_of_narrow_gates(sums, parts, narrow_count(number), c, new)

        choose(builder, parts, range(1, _most_parts(number) + 1), build)
        return context.get_dummy_value()

    n = types.int64
    return types.void(z, z, n, n, w, z, z, n), generate
