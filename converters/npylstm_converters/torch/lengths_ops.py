"""Operations of traced programs on sequences with lengths (:mod:`.packing`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from npylstm.ops.arithmetic import Arithmetic, Where
from npylstm.ops.shaping import Reshape
from npylstm_converters.toolkit import shaping_ops
from npylstm_converters.torch.builder import Ref, TracedShape
from npylstm_converters.torch.calls import Call

__all__ = ["SequenceWithLengths", "padded", "with_lengths"]


@dataclass(frozen=True)
class SequenceWithLengths:
    """A padded sequence ``(batch, steps, features)`` and its mask ``(batch, steps)``."""

    x: Ref
    mask: Ref

    @property
    def traced(self) -> TracedShape:
        return self.x.traced


def _mask(call: Call, x: Ref, lengths: Any) -> Ref:
    """Return 1 at the steps before a sequence's length, else 0; once for the same lengths."""
    counts = call.builder.ref(lengths, f"{call.node}_lengths")
    key = counts.name, call.shape(x)[1]
    if key not in call.builder.masks:
        column = call.add(Reshape(((0, 0), 1)), counts, part="column")
        steps = shaping_ops.positions(call, x, 1)
        call.builder.masks[key] = call.add(Arithmetic("less"), steps, column, part="mask")
    return call.builder.masks[key]


def with_lengths(call: Call, x: Any, lengths: Any) -> SequenceWithLengths:
    """Return a sequence for a recurrent layer."""
    source = call.tensor(x)
    return SequenceWithLengths(source, _mask(call, source, lengths))


def padded(call: Call, x: Any, lengths: Any, value: float) -> Ref:
    """Return a sequence with ``value`` after each length."""
    source = call.tensor(x)
    mask = _mask(call, source, lengths)
    if value == 0 and call.builder.zeroed.get(source.name) == mask.name:
        return source
    ones = (1,) * (call.rank(source) - 2)
    spread = call.add(Reshape(((0, 0), (0, 1), *ones)), mask, part="spread")
    return call.add(Where(None, float(value)), spread, source)
