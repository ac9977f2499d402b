"""Pool: one model on thousands of live streams, by key."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, NpylstmError, StateError
from npylstm.graph.state import State, join_states, map_state, take_rows
from npylstm.io import state_file
from npylstm.ops.shapes import BATCH, STEPS
from npylstm.printable import clipped
from npylstm.runtime.binding import bind, bind_nan, bind_state, check_out, unbind
from npylstm.runtime.initial_state import initial_state
from npylstm.runtime.pool_keys import Keys, key_from_json, key_to_json, list_keys
from npylstm.runtime.pool_rows import PoolRows, Slots
from npylstm.runtime.predictor import Predictor

if TYPE_CHECKING:
    from npylstm.runtime.binding import Inputs, StateArrays

__all__ = ["Pool"]


class Pool:
    """Many streams of one model. Any of them advance together, in one call of the kernels.

    Made by :meth:`npylstm.Model.pool`. States are stored in one dense array per layer and state.
    Several threads may use a pool; its calls run one after another.

    Parameters
    ----------
    model
        The model.
    capacity
        Maximum number of streams.
    nan
        ``"pass"``: an input with nan sets its key's state to nan until it is reset, as in the
        frameworks. ``"raise"``: it raises an error, and no state changes.

    Attributes
    ----------
    model, capacity

    Raises
    ------
    UnsupportedError
        If the model cannot run on a stream.

    Examples
    --------
    >>> import npylstm
    >>> pool = npylstm.load("models/sine_keras/sine.npz").pool(1000)
    >>> pool.add(["pump", "fan"])
    >>> pool.step(["fan", "pump"], [[0.1], [0.2]]).shape
    (2, 1)
    """

    def __init__(self, model: Predictor, capacity: int, *, nan: str = "pass") -> None:
        if not isinstance(capacity, (int, np.integer)) or capacity < 1:
            raise NpylstmError(f"capacity: expected a positive integer, got {capacity!r}")
        self.model = model
        self.capacity = int(capacity)
        self._nan = bind_nan(nan)
        self._plan, engine = model.streaming
        self._spec = self._plan.spec
        self._at_step = tuple(map(self._plan.drop_time_axis, self._spec.inputs))
        self._states = engine.streams(self._spec, self.capacity)
        self._rows = PoolRows(self.capacity)
        self._lock = threading.Lock()
        self._step_shape = self._plan.drop_time_axis(self._spec.output_specs[0]).shape
        self._dtype = np.dtype(self._spec.dtype)

    def __repr__(self) -> str:
        name = clipped(repr(self.model.spec.name), 120)
        return f"<npylstm.Pool of {name}: {len(self)} of {self.capacity}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_states, (self.model, self.capacity, self._nan, self.snapshot())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._rows

    @property
    def keys(self) -> list[Hashable]:
        """Keys of all streams, in the order of their addition."""
        return self._rows.keys

    def add(self, keys: Keys) -> None:
        """Add streams, with the initial state.

        Parameters
        ----------
        keys
            One key, or a list, tuple, set, range or array of keys.

        Raises
        ------
        StateError
            If a key exists or the pool is full; then no key is added.
        """
        with self._lock:
            self._add(list_keys(keys))

    def _add(self, keys: list[Hashable]) -> None:
        reserved = self._rows.reserve(keys)
        rows = np.array([*reserved.values()], np.int64)
        self._states.write(rows, initial_state(self._plan, len(rows)))
        self._rows.add(reserved)

    def remove(self, keys: Keys | Slots) -> None:
        """Remove streams.

        Parameters
        ----------
        keys
            As for :meth:`add`.

        Raises
        ------
        StateError
            If a key is unknown or repeated; then no stream changes.
        """
        with self._lock:
            self._rows.remove(keys)

    def reset(self, keys: Keys | Slots) -> None:
        """Set streams to the initial state.

        Parameters
        ----------
        keys
            As for :meth:`add`.

        Raises
        ------
        StateError
            If a key is unknown or repeated; then no stream changes.
        """
        with self._lock:
            rows = self._rows.find(keys)
            self._states.write(rows, initial_state(self._plan, len(rows)))

    def slots(self, keys: Keys) -> Slots:
        """Find streams once, for calls that name the same ones again and again.

        Parameters
        ----------
        keys
            As for :meth:`add`, each only once.

        Returns
        -------
        Slots
            For the argument ``keys`` of other methods; valid until one of its streams is removed.

        Raises
        ------
        StateError
            If a key is unknown or repeated.

        Examples
        --------
        >>> import npylstm
        >>> pool = npylstm.load("models/sine_keras/sine.npz").pool(capacity=100)
        >>> pool.add(["a", "b"])
        >>> both = pool.slots(["a", "b"])
        >>> pool.step(both, [[0.1], [0.2]]).shape
        (2, 1)
        """
        with self._lock:
            return self._rows.slots(keys)

    def step(self, keys: Keys | Slots, x: Inputs, out: Array | None = None) -> Any:
        """Run one step of some streams; the others do not change.

        Parameters
        ----------
        keys
            Keys of the streams, or :meth:`slots`, in the order of the rows of ``x``; each only
            once.
        x
            Inputs without the axis of steps: ``(keys, features)``.
        out
            Array for the output, if the model has only one: contiguous, of its dtype and shape.

        Returns
        -------
        Array or dict
            Outputs without the axis of steps: ``(keys, units)``; ``out`` if it is passed.

        Raises
        ------
        StateError
            If a key is unknown or repeated; no state changes.
        ShapeError
            If an input or ``out`` does not fit; no state changes.
        """
        made = self._advance(keys, x, True, out)
        y = unbind({name: self._plan.last_step(name, y) for name, y in made.items()})
        if out is None:
            return y
        out[...] = y
        return out

    def push(self, keys: Keys | Slots, x: Inputs) -> Any:
        """Run the next steps of some streams; the others do not change.

        Parameters
        ----------
        keys
            Keys of the streams, in the order of the rows of ``x``; each only once.
        x
            As in :meth:`npylstm.Model.predict`, one row for each key: ``(keys, steps, features)``,
            with one or more steps.

        Returns
        -------
        Array or dict
            As :meth:`npylstm.Model.predict` returns it: every step's output
            ``(keys, steps, units)``, or the last one's ``(keys, units)``.

        Raises
        ------
        StateError
            If a key is unknown or repeated; no state changes.
        ShapeError
            If an input does not fit; no state changes.
        """
        return unbind(self._advance(keys, x, at_step=False))

    def _advance(
        self, keys: Keys | Slots, x: Inputs, at_step: bool, out: Array | None = None
    ) -> dict[str, Array]:
        """Run inputs of one step without time axis, or of several steps."""
        tensors = self._at_step if at_step else self._spec.inputs
        with self._lock:
            rows = self._rows.find(keys)
            if out is not None:
                shape = tuple(len(rows) if d == BATCH else d for d in self._step_shape)
                check_out(out, shape, self._dtype, len(self._spec.outputs))
            inputs = bind(x, tensors, self._spec.dtype, len(rows), "the keys", self._nan)
            if at_step:
                inputs = {name: self._plan.add_time_axis(name, a) for name, a in inputs.items()}
            made = self._states.advance(rows, inputs) if len(rows) else self._none(inputs)
        return {name: made[name] for name in self._spec.outputs}

    def snapshot(self, keys: Keys | Slots | None = None) -> dict[Hashable, State]:
        """Return a copy of states.

        Parameters
        ----------
        keys
            As for :meth:`add`; None means all.

        Returns
        -------
        dict
            ``{key: {layer: {"h": (units,), ...}}}``.

        Raises
        ------
        StateError
            If a key is unknown or repeated.
        """
        with self._lock:
            listed = self._rows.keys if keys is None else self._rows.names(keys)
            state = self._states.read(self._rows.find(listed))
        return {key: map_state(np.copy, take_rows(state, k)) for k, key in enumerate(listed)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all keys and their states to an ``.npz``.

        Parameters
        ----------
        path
            The file to create, or to replace when the new one is complete.

        Raises
        ------
        StateError
            If a key is not text, a number, bytes, None, or a tuple of these.
        """
        with self._lock:
            keys = self._rows.keys
            state = self._states.read(self._rows.find(keys))
        header = {"keys": [key_to_json(key) for key in keys]}
        state_file.write(path, "pool", self.model.spec, header, state)

    def restore(self, snapshot: Mapping[Hashable, StateArrays] | str | os.PathLike[str]) -> None:
        """Set states. Keys that are not in the pool are added; other keys keep their state.

        Parameters
        ----------
        snapshot
            The result of :meth:`snapshot`, or the path of a file of :meth:`save`.

        Raises
        ------
        StateError
            If a state does not fit, is of another model, or the pool is full; nothing changes.
        FormatError
            If the file is damaged or not a saved pool.
        OSError
            If it cannot be opened.
        """
        if not isinstance(snapshot, Mapping):
            snapshot = self._read(snapshot)
        shapes = self._spec.state_shapes()
        states = [
            bind_state(_with_batch(key, state), shapes, 1, self._spec.dtype)
            for key, state in snapshot.items()
        ]
        if not states:
            return
        with self._lock:
            self._add([key for key in snapshot if key not in self._rows])
            self._states.write(self._rows.find(list(snapshot)), join_states(states))

    def _read(self, path: str | os.PathLike[str]) -> dict[Hashable, StateArrays]:
        """Read a snapshot from a file."""
        header, state = state_file.read(path, "pool", self.model.spec)
        listed = header.get("keys")
        try:
            keys = [key_from_json(key) for key in listed]  # type: ignore[union-attr]
            distinct = len(set(keys)) == len(keys)
        except (TypeError, ValueError, KeyError):
            distinct = False
        if not distinct:
            raise FormatError(f"{path}: keys: expected a list without repetitions")
        for call, entries in state.items():
            for name, array in entries.items():
                if array.shape[:1] != (len(keys),):
                    raise FormatError(
                        f"{path}: state/{call}/{name}: expected {len(keys)} rows, one for each "
                        f"key, got shape {array.shape}"
                    )
        return {key: take_rows(state, k) for k, key in enumerate(keys)}

    def _none(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for zero streams."""
        sizes = {BATCH: 0, STEPS: 1}
        for tensor in self._spec.inputs:
            if STEPS in tensor.shape:
                sizes[STEPS] = inputs[tensor.name].shape[tensor.shape.index(STEPS)]
        outputs = {}
        for tensor in self._spec.output_specs:
            shape = [sizes.get(d, 1) if isinstance(d, str) else d for d in tensor.shape]
            outputs[tensor.name] = np.zeros(shape, self._spec.dtype)
        return outputs


def _with_batch(key: Hashable, state: Any) -> Any:
    """Add a batch axis to the state of one stream."""
    if not isinstance(state, Mapping) or not all(isinstance(v, Mapping) for v in state.values()):
        raise StateError(f"key {key!r}: expected a state, got {type(state).__name__}")
    return {call: {n: [a] for n, a in v.items()} for call, v in state.items()}


def _with_states(
    model: Predictor, capacity: int, nan: str, snapshot: Mapping[Hashable, StateArrays]
) -> Pool:
    """Return a pool with keys and their states, for pickle and copy."""
    pool = Pool(model, capacity, nan=nan)
    pool.restore(snapshot)
    return pool
