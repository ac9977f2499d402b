"""Model: a spec with a back end that computes it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError, ShapeError
from npylstm.graph.parts import LONGEST_REPR
from npylstm.graph.state import State, take_rows
from npylstm.io import npz
from npylstm.ops.shapes import BATCH, Shape
from npylstm.printable import clipped
from npylstm.runtime.batching import Result, cut, join, run_slices
from npylstm.runtime.binding import bind, bind_functions, bind_mask, bind_state
from npylstm.runtime.engines import Engine, Stream, make_engine
from npylstm.spec import Case, ModelSpec, TensorSpec

# Modules that only some programs need are imported at their first use, to start faster.
if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.graph.state import State
    from npylstm.graph.stream_plan import Plan
    from npylstm.ops.external import Function
    from npylstm.parity import ParityReport
    from npylstm.runtime.binding import Inputs, StateArrays
    from npylstm.runtime.generating import Feed, Window
    from npylstm.runtime.pool import Pool
    from npylstm.runtime.session import Session

__all__ = ["Model", "load"]


def load(
    source: npz.Source,
    backend: str = "auto",
    custom: Mapping[str, Function] | None = None,
    verify: bool = False,
) -> Model:
    """Load a model from an ``.npz``.

    Parameters
    ----------
    source
        A file of ``npylstm convert`` or :func:`npylstm.save`: its path, its bytes, or an open
        binary file, which is read to its end.
    backend
        ``"numba"``, ``"numpy"``, or ``"auto"``: the value of the environment
        variable ``NPYLSTM_BACKEND``; without it Numba if it is installed and can compile, else
        NumPy. Kernels that are not on disk are compiled here, in a few seconds.
    custom
        Functions of custom layers, by name, as passed to
        ``npylstm_converters.convert(..., custom=...)``. The file does not contain them.
    verify
        Replay the recorded cases at once; see :meth:`Model.verify`.

    Returns
    -------
    Model

    Raises
    ------
    FormatError
        If the file is damaged or not a model.
    UnsupportedError
        If the function of a custom layer is missing.
    ParityError
        With ``verify``, if parity does not hold.
    NpylstmError
        With ``verify``, if the file holds no cases.
    OSError
        If it cannot be opened.
    """
    model = Model(npz.read(source), backend, custom)
    if verify:
        try:
            model.verify().check()
        except NpylstmError as error:
            if isinstance(source, (str, os.PathLike)):
                raise type(error)(f"{os.fspath(source)}: {error}") from None
            raise
    return model


_MOST_SHORTCUTS = 64  # input shapes with a prepared call


class Model:
    """A model that computes. It is immutable, has no state, and is safe to call from many threads.

    Parameters
    ----------
    spec
        The graph with its weights.
    backend, custom
        As in :func:`load`.

    Attributes
    ----------
    spec
        The graph with its weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        backend: str = "auto",
        custom: Mapping[str, Function] | None = None,
    ) -> None:
        self._set(bind_functions(spec, custom or {}), lambda spec: make_engine(spec, backend))

    def _set(self, spec: ModelSpec, make: Callable[[ModelSpec], Engine]) -> None:
        self.spec = spec
        self._engine = make(spec)
        self._dtype = np.dtype(spec.dtype)
        self._shortcuts: dict[tuple[tuple[int, ...], int], Callable[[Array], Array]] = {}

    def __repr__(self) -> str:
        inputs = ", ".join(str(t) for t in self.inputs)
        outputs = ", ".join(str(t) for t in self.outputs)
        text = f"{self.spec.name!r}: {inputs} -> {outputs}"
        return f"<npylstm.Model {clipped(text, LONGEST_REPR - 25)}, {self.backend}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.spec, self.backend)

    def __copy__(self) -> Model:
        return self  # immutable

    def __deepcopy__(self, memo: object) -> Model:
        return self

    def _repr_html_(self) -> str:
        from npylstm.parity.page.notebook import model_html

        return model_html(self.spec, self.backend)

    @property
    def backend(self) -> str:
        """The back end, ``"numba"`` or ``"numpy"``; chosen when the model is loaded."""
        return self._engine.name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names and shapes of the inputs, in order."""
        return self.spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names and shapes of the outputs, in order."""
        return self.spec.output_specs

    def predict(
        self,
        x: Inputs,
        *,
        batch_size: int | None = None,
        threads: int = 1,
        progress: bool = False,
        state: StateArrays | None = None,
        return_state: bool = False,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Any:
        """Compute the outputs for a batch of sequences.

        Parameters
        ----------
        x
            One array for a model with one input; for several a list in the order of
            :attr:`inputs`, or a mapping by name. Converted to the model's dtype.
        batch_size
            Rows per slice; None means all, or slices where these are faster.
        threads
            Threads that share the rows, and the units of a single long sequence where that is
            faster.
        progress
            Show a progress bar on stderr.
        state
            The initial state, ``{layer: {"h": (batch, units), "c": ...}}``, for all recurrent
            layers; None means zeros.
        return_state
            Return the state after the last step, too.
        lengths
            Number of steps of each sequence ``(batch,)``, at most that of the array; None means
            all. After the end of a sequence a layer keeps its state, so a backward layer starts at
            the last valid step. The outputs there are as in the framework: zeros for models of
            PyTorch (``pack_padded_sequence``), the last output for those of Keras.
        mask
            Booleans ``(batch, steps)``, False for masked steps: like ``lengths``, but for any
            pattern, such as padding in front. Applied to every recurrent layer.

        Returns
        -------
        y
            One array, or ``{name: array}`` for a model with several outputs.
        state
            Only with ``return_state``: the same structure as ``state``.

        Raises
        ------
        ShapeError
            If an input's shape or dtype does not fit.
        StateError
            If a state's layers, names or shapes do not fit.

        Examples
        --------
        >>> model = load("models/sine_keras/sine.npz", backend="numpy")
        >>> model.predict(np.zeros((2, 5, 1))).shape
        (2, 1)
        """
        whole = all(value is None for value in (batch_size, state, lengths, mask))
        plain = whole and not return_state and not progress
        if plain and type(x) is np.ndarray and x.dtype == self._dtype:
            shortcut = self._shortcuts.get((x.shape, threads))
            if shortcut is not None:
                try:
                    return shortcut(x)
                except ShapeError:
                    pass  # raised again below
        inputs = bind(x, self.inputs, self.spec.dtype)
        batch = _axis_size(self.inputs[0].shape, inputs[self.inputs[0].name])
        carried = self._state(state, batch)
        moves = bind_mask(mask, lengths, self.spec, inputs, batch)
        for name, value in (("batch_size", batch_size), ("threads", threads)):
            if value is not None and value < 1:
                raise NpylstmError(f"{name}: expected a positive integer, got {value}")
        shortcut = self._lay_out(inputs, threads) if plain else None
        slices = cut(batch, batch_size or max(1, -(-batch // threads)))
        try:
            if shortcut is not None:
                return shortcut(inputs[self.inputs[0].name])
            # Outputs in which the batch is merged with other axes cannot be concatenated.
            if len(slices) == 1 or not all(BATCH in t.shape for t in self.outputs):
                results = [_unshared(self._engine.run(inputs, carried, moves), inputs)]
            else:
                run = functools.partial(self._run_slice, inputs, carried, moves)
                results = run_slices(run, slices, threads, progress)
        except ShapeError:  # run the whole batch, for the right position in the message
            self._engine.run(inputs, carried, moves)
            raise
        outputs, after = join(results, self._batch_axes)
        y = outputs if len(outputs) > 1 else outputs[self.outputs[0].name]
        return (y, after) if return_state else y

    def __call__(self, x: Inputs, **options: Any) -> Any:
        """Compute the outputs, as :meth:`predict`."""
        return self.predict(x, **options)

    def warm_up(self) -> None:
        """Do nothing: kernels are compiled, or read from the disk, when a model is loaded."""

    def _lay_out(
        self, inputs: Mapping[str, Array], threads: int
    ) -> Callable[[Array], Array] | None:
        """Prepare calls for checked inputs of this shape, and keep them."""
        x = next(iter(inputs.values()))
        key = x.shape, threads
        known = self._shortcuts.get(key)
        if known is not None:
            return known
        if len(inputs) > 1 or self.inputs[0].integer:
            return None
        if len(self._shortcuts) >= _MOST_SHORTCUTS:
            self._shortcuts = {}
        shortcut = self._engine.shortcut(x.shape, threads) if x.size else None
        if shortcut is not None:
            self._shortcuts[key] = shortcut
        return shortcut

    def _run_slice(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None, rows: slice
    ) -> Result:
        axes = {t.name: t.shape.index(BATCH) for t in self.inputs}
        part = {
            name: np.ascontiguousarray(x[(slice(None),) * axes[name] + (rows,)])
            for name, x in inputs.items()
        }
        part_state = take_rows(state, rows)
        return self._engine.run(part, part_state, None if mask is None else mask[rows])

    @property
    def _batch_axes(self) -> dict[str, int]:
        """The batch axis of each output."""
        return {t.name: t.shape.index(BATCH) for t in self.outputs if BATCH in t.shape}

    @functools.cached_property
    def streaming(self) -> tuple[Plan, Engine]:
        """The stream plan of the model and its engine; see :meth:`session`."""
        from npylstm.graph.stream_plan import plan_stream

        plan = plan_stream(self.spec)
        return plan, self._engine.with_spec(plan.spec)

    def session(self, batch_size: int = 1, *, nan: str = "pass") -> Session:
        """Return a session, for a live stream: see :class:`npylstm.Session`.

        Raises
        ------
        UnsupportedError
            With every layer that cannot run on a stream.
        """
        from npylstm.runtime.session import Session

        return Session(self, batch_size, nan=nan)

    def pool(self, capacity: int, *, nan: str = "pass") -> Pool:
        """Return a pool for up to ``capacity`` live streams, by key: see :class:`npylstm.Pool`.

        Raises
        ------
        UnsupportedError
            As for :meth:`session`.
        """
        from npylstm.runtime.pool import Pool

        return Pool(self, capacity, nan=nan)

    def stream(self, batch: int) -> Stream:
        """Return a state that calls of the whole model update; users call :meth:`session`."""
        return self._engine.stream(self.spec, batch)

    def forecast(
        self,
        x: npt.ArrayLike,
        steps: int,
        *,
        window: Window = "auto",
        feed: Feed | None = None,
        state: StateArrays | None = None,
        return_state: bool = False,
    ) -> Any:
        """Forecast step by step: each output is the next input.

        Parameters
        ----------
        x
            The known values ``(batch, steps, features)``.
        steps
            Number of outputs; the first is the prediction after ``x``.
        window
            None: carry the state; each output is the input of one step. A number: each run reads
            the last ``window`` values and starts from zero state; ``stateful`` layers carry their
            state from window to window, as in the framework. ``"auto"``: a window if the model has
            a fixed number of steps, else None.
        feed
            A function that computes the next input ``(batch, features)`` from an output
            ``(batch, units)``: sampling, scaling. None: the output itself; this loop is native.
        state
            The initial state; None means zeros.
        return_state
            Return the state after the last step, too.

        Returns
        -------
        y
            ``(batch, steps, units)``; for models that return sequences the last step of each run.
        state
            Only with ``return_state``.

        Raises
        ------
        ShapeError
            If the model has several inputs or outputs, or an output does not have the shape of an
            input and there is no ``feed``.
        UnsupportedError
            If the state is to be carried and the model cannot run on a stream.
        """
        from npylstm.runtime.generating import forecast

        y, after = forecast(self, x, steps, window=window, feed=feed, state=state)
        return (y, after) if return_state else y

    def trace(
        self,
        x: Inputs,
        *,
        state: StateArrays | None = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Return the gates and states of the recurrent layers at every step.

        Always computed by the NumPy back end.

        Parameters
        ----------
        x, state, lengths, mask
            As in :meth:`predict`.

        Returns
        -------
        dict
            ``{layer: Gates(i, f, c_tilde, o, c, h)}``, each ``(batch, steps, units)``;
            ``[:, t]`` belongs to the layer's input step ``t``. A GRU gives ``(z, r, h_tilde, h)``,
            a simple recurrent layer ``(h,)``; a bidirectional one has two entries,
            ``layer/forward`` and ``layer/backward``.
        """
        from npylstm.runtime.numpy_engine import NumpyEngine

        inputs = bind(x, self.inputs, self.spec.dtype)
        batch = _axis_size(self.inputs[0].shape, inputs[self.inputs[0].name])
        moves = bind_mask(mask, lengths, self.spec, inputs, batch)
        return NumpyEngine(self.spec).trace(inputs, self._state(state, batch), moves)

    def verify(
        self, cases: Iterable[Case] | None = None, framework: str | None = None
    ) -> ParityReport:
        """Compute recorded cases of the framework and compare the outputs.

        Parameters
        ----------
        cases
            Cases to use instead of those in the file.
        framework
            The framework that recorded them, for the report; default: from the file.

        Returns
        -------
        ParityReport
            With the verdict, ``passed``.

        Raises
        ------
        NpylstmError
            If there are no cases; an ``UnprovenError`` if the outputs prove nothing: all are nan,
            all are zero after a relu, or all are as small as rounding errors.
        ParityError
            If an output has another shape than the framework's.
        """
        from npylstm import parity

        cases = self.spec.cases if cases is None else tuple(cases)
        if not cases:
            raise NpylstmError(
                f"{self.spec.name}: holds no recorded cases; convert it where its framework is "
                "installed, or compare with `npylstm verify MODEL.npz --against SOURCE`"
            )
        return parity.verify(self, cases, framework)

    def replay(self, case: Case) -> dict[str, Array]:
        """Return the outputs for the inputs of a recorded case, by name."""
        y = self.predict(case.inputs, state=case.state or None, lengths=case.lengths)
        return y if isinstance(y, dict) else {self.outputs[0].name: y}

    def astype(self, dtype: npt.DTypeLike) -> Model:
        """Return the same model for ``"float32"`` or ``"float64"``."""
        return Model(self.spec.astype(str(np.dtype(dtype))), self.backend)

    def with_free_steps(self) -> Model:
        """Return the same model for any number of steps, if its layers allow it."""
        other = Model.__new__(Model)
        other._set(self.spec.with_free_steps(), self._engine.with_spec)
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to an ``.npz``; see :func:`npylstm.save`."""
        npz.save(self.spec, path)

    def summary(self) -> str:
        """Return layers, shapes, sizes and origin as printable text."""
        from npylstm.summary import summarise

        return summarise(self.spec, f", {self.backend} back end")

    def _state(self, state: StateArrays | None, batch: int) -> State:
        return bind_state(state, self.spec.state_shapes(), batch, self.spec.dtype)


def _axis_size(shape: Shape, array: Array) -> int:
    return int(array.shape[shape.index(BATCH)])


def _unshared(
    result: tuple[dict[str, Array], State], inputs: Mapping[str, Array]
) -> tuple[dict[str, Array], State]:
    """Copy outputs that share memory with inputs, states or other outputs, such as of a reshape."""
    taken = [*inputs.values(), *(a for entries in result[1].values() for a in entries.values())]
    outputs = {}
    for name, y in result[0].items():
        outputs[name] = y.copy() if any(np.may_share_memory(y, x) for x in taken) else y
        taken.append(outputs[name])
    return outputs, result[1]
