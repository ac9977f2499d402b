"""Session: a model on a live stream, with its state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError, ShapeError, StateError
from npylstm.graph.state import State, join_states, take_rows
from npylstm.io import state_file
from npylstm.ops.shapes import BATCH, STEPS
from npylstm.printable import clipped
from npylstm.runtime.binding import bind, bind_nan, bind_state, check_out, unbind
from npylstm.runtime.initial_state import initial_state
from npylstm.runtime.predictor import IDS, Predictor
from npylstm.runtime.prepared import Prepared, PreparedCalls, prepare

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.runtime.binding import Inputs, StateArrays

__all__ = ["Session"]


class Session:
    """A stream of sequences: each call continues from the state after the last call.

    Made by :meth:`npylstm.Model.session`. Sessions of one model share its weights. Any number of
    threads may run sessions at once; each session belongs to one thread at a time.

    Parameters
    ----------
    model
        The model.
    batch_size
        Number of sequences.
    nan
        ``"pass"``: an input with nan sets its row's state to nan until it is reset, as in the
        frameworks. ``"raise"``: it raises an error, and the state does not change.

    Attributes
    ----------
    model, batch_size

    Raises
    ------
    UnsupportedError
        If the model cannot run on a stream; with every layer that prevents it.

    Examples
    --------
    >>> import npylstm
    >>> session = npylstm.load("models/sine_keras/sine.npz").session()
    >>> session.push([[[0.1], [0.2]]]).shape
    (1, 1)
    >>> session.step([[0.3]]).shape
    (1, 1)
    """

    def __init__(self, model: Predictor, batch_size: int = 1, *, nan: str = "pass") -> None:
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise NpylstmError(f"batch_size: expected a positive integer, got {batch_size!r}")
        self.model = model
        self.batch_size = int(batch_size)
        self._nan = bind_nan(nan)
        self._plan, engine = model.streaming
        self._spec = self._plan.spec
        self._at_step = tuple(map(self._plan.drop_time_axis, self._spec.inputs))
        self._stream = engine.stream(self._spec, self.batch_size)
        y = self._plan.drop_time_axis(self._spec.output_specs[0])
        self._step_shape = tuple(self.batch_size if d == BATCH else d for d in y.shape)
        self._dtype = np.dtype(self._spec.dtype)
        self._checked = engine.checked_inputs
        self._fast = self._prepared_step()
        self._pushes = PreparedCalls()
        # Dtypes of single steps that need no conversion.
        self._as_it_is = (self._dtype, *(IDS if self._at_step[0].integer else ()))
        self.reset()

    def __repr__(self) -> str:
        name = clipped(repr(self.model.spec.name), 120)
        return f"<npylstm.Session of {name}: batch of {self.batch_size}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_state, (self.model, self.batch_size, self._nan, self.state)

    def push(self, x: Inputs, out: Array | None = None) -> Any:
        """Run the next steps of every sequence.

        Parameters
        ----------
        x
            As in :meth:`npylstm.Model.predict`, with one or more steps, even if the trained model
            has a fixed number. Inputs without time axis are passed with every push.
        out
            Array for the output, if the model has only one: contiguous, of its dtype and shape.

        Returns
        -------
        Array or dict
            As :meth:`npylstm.Model.predict`: the output of every step, or of the last one; ``out``
            if it is passed.

        Raises
        ------
        ShapeError
            If an input or ``out`` does not fit; the state does not change.
        """
        if type(x) is np.ndarray and x.dtype in self._as_it_is:
            prepared = self._pushes.kept(x.shape)
            if prepared is not None:
                if out is not None:
                    self._check(out, prepared.target.shape)
                return prepared.run(x, out, self._bind_steps)
        inputs = self._bind_steps(x)
        if self._fast is not None:
            ((name, array),) = inputs.items()
            self._pushes.prepare(self._stream, name, array.shape)
            return self.push(array, out)
        before = None if out is None else self._stream.read()
        outputs = self._stream.run(inputs)
        y = unbind({name: outputs[name] for name in self._spec.outputs})
        if out is None or before is None:
            return y
        try:
            self._check(out, outputs[self._spec.outputs[0]].shape)
        except ShapeError:
            self._stream.write(before)
            raise
        out[...] = y
        return out

    def _bind_steps(self, x: Inputs) -> dict[str, Array]:
        """Check and convert inputs with time axis."""
        fixed = self._spec.fixed_steps
        return bind(
            x, self._spec.inputs, self._spec.dtype, self.batch_size, nan=self._nan,
            fixed_steps=fixed,
        )  # fmt: skip

    def step(self, x: Inputs, out: Array | None = None) -> Any:
        """Run one step of every sequence.

        Parameters
        ----------
        x
            Inputs without time axis: ``(batch, features)``.
        out
            Array for the output, if the model has only one: contiguous, of its dtype and shape.

        Returns
        -------
        Array or dict
            Outputs without time axis: ``(batch, units)``; ``out`` if it is passed.

        Raises
        ------
        ShapeError
            If an input or ``out`` does not fit; the state does not change.
        """
        if self._fast is None:
            return self._run_step(self._bind_step(x), out)
        stepper, source, target = self._fast
        if type(x) is not np.ndarray or x.shape != source.shape or x.dtype not in self._as_it_is:
            (x,) = self._bind_step(x).values()
        if out is not None:
            self._check(out, self._step_shape)
        source[...] = x  # as Prepared.run, whose call would take a sixth of the time
        try:
            stepper.run()
        except ShapeError:
            self._bind_step(x)  # raises where a value is no integer
            raise
        if out is None:
            return target.copy()
        out[...] = target
        return out

    def _bind_step(self, x: Inputs) -> dict[str, Array]:
        """Check and convert inputs without time axis."""
        return bind(x, self._at_step, self._spec.dtype, self.batch_size, nan=self._nan)

    def _run_step(self, inputs: Mapping[str, Array], out: Array | None) -> Any:
        """Run one step without preparation."""
        if out is not None:
            self._check(out, self._step_shape)
        one_step = {name: self._plan.add_time_axis(name, array) for name, array in inputs.items()}
        made = self._stream.run(one_step)
        y = unbind({name: self._plan.last_step(name, made[name]) for name in self._spec.outputs})
        if out is None:
            return y
        out[...] = y
        return out

    def loop(self, x: Array, steps: int) -> Array | None:
        """Run steps natively, each output the next input; see :meth:`npylstm.Model.forecast`.

        Parameters
        ----------
        x
            The first input ``(batch, features)``, checked.
        steps
            Number of steps.

        Returns
        -------
        Array
            ``(batch, steps, features)``; None if the back end does not support it.
        """
        if self._plan.times[self._spec.inputs[0].name] != 1:
            return None
        made = self._stream.loop(np.ascontiguousarray(x[:, None]), steps, 0, carry=True)
        return None if made is None else made.swapaxes(0, 1)

    def reset(self, where: npt.ArrayLike | None = None) -> None:
        """Set sequences to the initial state.

        Parameters
        ----------
        where
            Booleans ``(batch,)`` of the sequences to reset; None means all.

        Raises
        ------
        ShapeError
            If ``where`` is not such an array.
        """
        state = initial_state(self._plan, self.batch_size)
        if where is not None:
            mask = np.asarray(where)
            if mask.shape != (self.batch_size,) or mask.dtype != np.bool_:
                raise ShapeError(
                    f"where: expected {self.batch_size} booleans, got {mask.dtype} of shape "
                    f"{mask.shape}"
                )
            old = self._stream.read()
            for call, entries in state.items():
                for name, array in entries.items():
                    array[~mask] = old[call][name][~mask]
        self._stream.write(state)

    @property
    def state(self) -> State:
        """A copy of the state, ``{layer: {"h": (batch, units), "c": ...}}``; it can be set.

        Setting one that does not fit raises a StateError and changes nothing.
        """
        return self._stream.read()

    @state.setter
    def state(self, state: StateArrays) -> None:
        if state is None:
            raise StateError("state: expected a mapping, got None; reset() starts from zeros")
        shapes = self._spec.state_shapes()
        self._stream.write(bind_state(state, shapes, self.batch_size, self._spec.dtype))

    def copy(self) -> Session:
        """Return another session with the same state.

        Returns
        -------
        Session
        """
        return _with_state(self.model, self.batch_size, self._nan, self.state)

    def split(self, sizes: Sequence[int] | None = None) -> list[Session]:
        """Return sessions with parts of the sequences; this one does not change.

        Parameters
        ----------
        sizes
            Number of sequences of each session; their sum is the batch size. None means one each.

        Returns
        -------
        list of Session
            In the order of the sequences.

        Raises
        ------
        ShapeError
            If the sum is not the batch size.
        """
        sizes = [1] * self.batch_size if sizes is None else [int(n) for n in sizes]
        if sum(sizes) != self.batch_size or min(sizes, default=0) < 1:
            raise ShapeError(
                f"sizes: expected positive ones that add up to {self.batch_size}, got {sizes}"
            )
        state, parts, at = self.state, [], 0
        for size in sizes:
            rows = take_rows(state, slice(at, at + size))
            parts.append(_with_state(self.model, size, self._nan, rows))
            at += size
        return parts

    @classmethod
    def join(cls, sessions: Iterable[Session]) -> Session:
        """Return one session with the sequences of several sessions.

        Parameters
        ----------
        sessions
            Of one model.

        Returns
        -------
        Session
            With their sequences in order.

        Raises
        ------
        StateError
            If there are no sessions, or they are of different models.
        """
        sessions = list(sessions)
        if not sessions:
            raise StateError("join: expected at least one session")
        first = sessions[0]
        if any(session.model is not first.model for session in sessions):
            raise StateError("join: expected sessions of one model")
        rows = join_states([session.state for session in sessions])
        size = sum(session.batch_size for session in sessions)
        return _with_state(first.model, size, first._nan, rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to an ``.npz``.

        Parameters
        ----------
        path
            The file to create, or to replace when the new one is complete.
        """
        header = {"batch_size": self.batch_size}
        state_file.write(path, "session", self.model.spec, header, self.state)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Restore a saved state, in any process; the next outputs are equal bit by bit.

        Parameters
        ----------
        path
            A file of :meth:`save`.

        Raises
        ------
        StateError
            If the file is of another model or batch size; the state does not change.
        FormatError
            If it is damaged or not a saved session.
        OSError
            If it cannot be opened.
        """
        header, state = state_file.read(path, "session", self.model.spec)
        saved = header.get("batch_size")
        if saved != self.batch_size:
            raise StateError(f"{path}: saved with batch_size {saved}, expected {self.batch_size}")
        try:
            self.state = state
        except StateError as error:
            raise StateError(f"{path}: {error}") from None

    def _check(self, out: Array, shape: tuple[int | str, ...]) -> None:
        check_out(out, shape, self._dtype, len(self._spec.outputs))

    def _prepared_step(self) -> Prepared | None:
        """Prepare single steps of a model with one input and one output: a call and its arrays."""
        one = len(self._spec.inputs) == len(self._spec.outputs) == 1
        if not one or self._nan != "pass":
            return None
        if self._at_step[0].integer and self._at_step[0].name not in self._checked:
            return None
        (x,), known = self._spec.inputs, {BATCH: self.batch_size, STEPS: 1}
        sizes = tuple(known.get(d, 0) if isinstance(d, str) else d for d in x.shape)
        prepared = prepare(self._stream, x.name, sizes) if 0 not in sizes else None
        if prepared is None:
            return None
        stepper, source, target = prepared
        last, y = self._plan.last_step, self._spec.outputs[0]
        return Prepared(stepper, last(x.name, source), last(y, target))


def _with_state(model: Predictor, batch_size: int, nan: str, state: StateArrays) -> Session:
    """Return a session with a state, for pickle and copy."""
    session = Session(model, batch_size, nan=nan)
    session.state = state
    return session
