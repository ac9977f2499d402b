"""A program with buffers of its own: ready to run."""

from __future__ import annotations

from npylstm.arrays import Array
from npylstm.engine.kernel_table import execute
from npylstm.engine.lowering import Place, Program
from npylstm.engine.packing import aligned
from npylstm.engine.team import Team
from npylstm.errors import ShapeError

__all__ = ["Frame"]


class Frame:
    """Buffers for a program, seen as its inputs, outputs and states. Belongs to one call at a time.

    Attributes
    ----------
    x, y
        Inputs to fill and outputs to read, by name.
    mask
        To fill, where the program has one.
    states
        States with their places, to fill and to read.
    work, state
        The buffers as a whole.
    program
        What runs.
    run
        Computes ``y``, and the states after it.
    arguments
        What kernels of whole programs are given: the table's rows, and addresses of it, of the
        parameters, the state and the work buffer.
    """

    def __init__(self, program: Program, params: Array, state: Array | None = None) -> None:
        dtype = str(params.dtype)
        self.work = aligned(program.work_size, dtype)
        self.state = aligned(program.state_size, dtype) if state is None else state
        self.x, self.y = (
            {place.name[0]: _seen(self.work, place) for place in places}
            for places in (program.reads, program.writes)
        )
        self.mask = _seen(self.work, program.mask)
        self.states = [(place, _seen(self.state, place)) for place in program.states]
        self.program, self._params = program, params
        self.arguments = (
            len(program.table), program.table.ctypes.data, params.ctypes.data,
            self.state.ctypes.data, self.work.ctypes.data,
        )  # fmt: skip
        self._execute = execute.bind(*self.arguments)
        self._team: Team | None = None
        self.run = self._run_and_check if program.checks else self._execute

    def _run_and_check(self) -> None:
        before = self.state.copy()
        self._execute()
        try:
            self.check()
        except ShapeError:
            self.state[...] = before
            raise

    def run_with(self, members: int) -> None:
        """Compute ``y`` by threads that share units; the states are the caller's to keep."""
        if members == 1:
            self._execute()
        else:
            if self._team is None or self._team.members != members:
                self._team = Team(self.program.table, self.arguments[2:], members)
            self._team.run(self)
        self.check()

    def check(self) -> None:
        """Refuse what kernels could not, when they have run.

        Raises
        ------
        ShapeError
            Where ids are none.
        """
        told = [check for check in self.program.checks if self.work[check[0]]]
        for flag, *_ in told:
            self.work[flag] = 0
        for _, name, layer, place in told:
            try:
                layer.check(_seen(self.work, place))
            except ShapeError as error:
                raise ShapeError(f"{name}: {error}") from None
            # Of several blocks of rows, the last is still there.
            last = layer.vocabulary - 1
            raise ShapeError(f"{name}: an id: expected whole numbers from 0 to {last}")


def _seen(buffer: Array, place: Place) -> Array:
    return buffer[place.start : place.stop].reshape(place.shape)
