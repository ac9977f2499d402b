"""Calls of a stream that are prepared once: they allocate nothing but the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.runtime.engines import Stepper, Stream

__all__ = ["Prepared", "PreparedCalls", "prepare"]

_MOST_KEPT = 2  # a stream of blocks, and a last block of another size


class Prepared(NamedTuple):
    """A prepared call, and the arrays of its input and its output."""

    stepper: Stepper
    source: Array
    target: Array

    def run(self, x: Array, out: Array | None, bind: Callable[[Array], Any]) -> Array:
        """Run the call for an input of the right shape and dtype; ``out`` is checked.

        ``bind`` raises the error of an input that the kernels do not accept.
        """
        self.source[...] = x
        try:
            self.stepper.run()
        except ShapeError:
            bind(x)
            raise
        if out is None:
            made: Array = self.target.copy()
            return made
        out[...] = self.target
        return out


def prepare(stream: Stream, name: str, sizes: tuple[int, ...]) -> Prepared | None:
    """Prepare calls with one input of these sizes and one output; None if the back end cannot."""
    stepper = stream.stepper({name: sizes})
    if stepper is None:
        return None
    (source,), (target,) = stepper.x.values(), stepper.y.values()
    return Prepared(stepper, source, target)


class PreparedCalls:
    """The last prepared calls, by the shape of their input; each has buffers of its own."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, ...], Prepared] = {}

    def kept(self, sizes: tuple[int, ...]) -> Prepared | None:
        """Return the call for an input of these sizes; None if it is not prepared."""
        return self._calls.get(sizes)

    def prepare(self, stream: Stream, name: str, sizes: tuple[int, ...]) -> None:
        """Prepare and keep the call for an input of these sizes, of a back end that can."""
        if len(self._calls) >= _MOST_KEPT:
            del self._calls[next(iter(self._calls))]
        made = prepare(stream, name, sizes)
        assert made is not None  # single steps are prepared
        self._calls[sizes] = made
