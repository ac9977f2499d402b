"""A program with its buffers, ready to run."""

from __future__ import annotations

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.kernels.calls import Place
from npylstm.kernels.library import EXECUTE
from npylstm.kernels.packing import aligned
from npylstm.runtime.program import Program
from npylstm.runtime.thread_group import ThreadGroup

__all__ = ["ProgramBuffers"]


class ProgramBuffers:
    """Buffers of a program, with views of inputs, outputs and states. Used by one call at a time.

    Attributes
    ----------
    x, y
        Inputs to fill and outputs to read, by name.
    mask
        To fill, if the program has a mask.
    states
        Places and views of the states, to fill and to read.
    work, state
        The whole buffers.
    program
        The program.
    run
        Computes ``y`` and the final states.
    arguments
        Arguments of ``execute``: number of rows, and addresses of the table, the parameters, the
        state buffer and the work buffer.
    """

    def __init__(self, program: Program, state: Array | None = None) -> None:
        parameters = program.parameters
        dtype = parameters.dtype
        self.work = aligned(program.work_size, dtype)
        self.state = aligned(program.state_size, dtype) if state is None else state
        self.x, self.y = (
            {place.name[0]: _view(self.work, place) for place in places}
            for places in (program.reads, program.writes)
        )
        self.mask = _view(self.work, program.mask)
        self.states = [(place, _view(self.state, place)) for place in program.states]
        self.program = program
        self.arguments = (
            len(program.table), program.table.ctypes.data, parameters.buffer.ctypes.data,
            self.state.ctypes.data, self.work.ctypes.data,
        )  # fmt: skip
        self._execute = parameters.library.bind(EXECUTE, *self.arguments)
        self._group: ThreadGroup | None = None
        self.run = self._run_and_check if program.checks else self._execute
        self._before = np.empty_like(self.state) if program.checks else self.state

    def _run_and_check(self) -> None:
        np.copyto(self._before, self.state)
        self._execute()
        for check in self.program.checks:
            if self.work[check[0]]:
                np.copyto(self.state, self._before)
                self.check()

    def run_with(self, threads: int) -> None:
        """Compute ``y`` by threads that share units; does not restore the states after an error."""
        if threads == 1:
            self._execute()
        else:
            if self._group is None or self._group.threads != threads:
                self._group = ThreadGroup(self.program, self.arguments[2:], threads)
            self._group.run(self)
        self.check()

    def check(self) -> None:
        """Raise the errors that kernels reported.

        Raises
        ------
        ShapeError
            If an operation does not accept a value.
        """
        reported = [check for check in self.program.checks if self.work[check[0]]]
        for flag, *_ in reported:
            self.work[flag] = 0
        for _, name, operation, place in reported:
            try:
                operation.check_values(_view(self.work, place))
            except ShapeError as error:
                raise ShapeError(f"{name}: {error}") from None
            # The value was in an earlier block of rows, whose inputs are overwritten.
            raise ShapeError(f"{name}: a value: expected {operation.accepted}")


def _view(buffer: Array, place: Place) -> Array:
    return buffer[place.start : place.stop].reshape(place.shape)
