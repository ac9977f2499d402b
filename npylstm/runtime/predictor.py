"""Predictor: a spec with the engine that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError, ShapeError
from npylstm.graph.state import State
from npylstm.lazy import lazy_property
from npylstm.loading import module
from npylstm.runtime.batching import cut, run_batch
from npylstm.runtime.binding import bind, bind_mask, bind_state, unbind
from npylstm.runtime.engines import Engine, Stream
from npylstm.runtime.sharing import Work, useful_threads, work_of
from npylstm.spec import Case, ModelSpec, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.graph.stream_plan import Plan
    from npylstm.runtime.binding import Inputs, StateArrays

__all__ = ["IDS", "Predictor"]

Self = TypeVar("Self", bound="Predictor")

# Dtypes of ids that kernels check.
IDS = tuple(np.dtype(name) for name in ("int64", "int32"))
_MOST_PREPARED_CALLS = 64  # input shapes with a prepared call


class Predictor:
    """The part of :class:`npylstm.Model` that sessions, pools and forecasts use."""

    def __init__(self, spec: ModelSpec, engine: Engine) -> None:
        self.spec = spec
        self._engine = engine
        self._dtype = np.dtype(spec.dtype)
        self._prepared_calls: dict[Any, Callable[[Sequence[Array]], list[Array]]] = {}
        self._works: dict[Any, Work] = {}

    @property
    def backend(self) -> str:
        """The back end: ``"native"``, ``"numba"`` or ``"numpy"``; chosen when a model is loaded."""
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
            Maximum number of threads that share the rows, or the units of a single long sequence.
            Short calls use fewer, and no call uses more than there are processors. With compiled
            kernels the outputs have the bits of one thread.
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
        NpylstmError
            If ``batch_size`` or ``threads`` is not positive.

        Examples
        --------
        >>> import npylstm
        >>> model = npylstm.load("models/sine_keras/sine.npz")
        >>> model.predict(np.zeros((2, 5, 1))).shape
        (2, 1)
        """
        defaults = batch_size is None and state is None and lengths is None and mask is None
        plain = defaults and not return_state and not progress
        arrays: Sequence[Array] | None = None
        key: tuple[object, ...] = ()
        if plain and type(x) is np.ndarray and x.dtype in self._only_kinds:
            arrays, key = (x,), (x.shape, threads)
        elif plain and type(x) is not np.ndarray:
            arrays = self._ready(x)
            key = (*(a.shape for a in arrays or ()), threads)
        if arrays is not None:
            call = self._prepared_calls.get(key)
            if call is not None:
                try:
                    return self._unbind(call(arrays))
                except ShapeError:
                    pass  # raised again below
        inputs = bind(x, self.inputs, self.spec.dtype, fixed_steps=self.spec.fixed_steps)
        batch = self._batch_size(inputs)
        carried = self._state(state, batch)
        unmasked = bind_mask(mask, lengths, self.spec, inputs, batch)
        for name, value in (("batch_size", batch_size), ("threads", threads)):
            if value is not None and value < 1:
                raise NpylstmError(f"{name}: expected a positive integer, got {value}")
        useful = self._useful_threads(inputs, threads)
        call = self._prepared_call(inputs, threads, useful) if plain else None
        slices = cut(batch, batch_size or max(1, -(-batch // useful)))
        try:
            if call is not None:
                return self._unbind(call([*inputs.values()]))
            outputs, after = run_batch(
                self._engine, self.spec, inputs, carried, unmasked, slices, useful, progress
            )
        except ShapeError:  # run the whole batch, for the right position in the message
            self._engine.run(inputs, carried, unmasked)
            raise
        return (unbind(outputs), after) if return_state else unbind(outputs)

    def __call__(self, x: Inputs, **options: Any) -> Any:
        """Compute the outputs, as :meth:`predict`."""
        return self.predict(x, **options)

    def _ready(self, x: Inputs) -> list[Array] | None:
        """Return the inputs in order, if they are arrays that prepared calls take as they are."""
        if isinstance(x, Mapping):
            if len(x) != len(self._kinds):
                return None
            given: Sequence[Any] = [x.get(name) for name in self._kinds]
        elif len(self._kinds) > 1 and isinstance(x, (list, tuple)):
            given = x
        else:
            return None
        if len(given) != len(self._kinds):
            return None
        for array, kinds in zip(given, self._kinds.values(), strict=True):
            if type(array) is not np.ndarray or array.dtype not in kinds:
                return None
        return [*given]

    @lazy_property
    def _only_kinds(self) -> tuple[np.dtype[Any], ...]:
        """The same of the only input; none if there are several."""
        return next(iter(self._kinds.values())) if len(self._kinds) == 1 else ()

    @lazy_property
    def _kinds(self) -> dict[str, tuple[np.dtype[Any], ...]]:
        """The dtypes of each input that prepared calls take as they are; none for some."""
        checked = self._engine.checked_inputs
        return {
            t.name: ((self._dtype, *IDS) if t.name in checked else ()) if t.integer
            else (self._dtype,)
            for t in self.inputs
        }  # fmt: skip

    def _unbind(self, outputs: Sequence[Array]) -> Any:
        """Return outputs as users get them: the only one as an array, several by name."""
        if len(outputs) == 1:
            return outputs[0]
        return dict(zip(self.spec.outputs, outputs, strict=True))

    def _prepared_call(
        self, inputs: Mapping[str, Array], threads: int, useful: int
    ) -> Callable[[Sequence[Array]], list[Array]] | None:
        """Prepare calls for checked inputs of these shapes, and keep them."""
        shapes = [x.shape for x in inputs.values()]
        key = (*shapes, threads)
        known = self._prepared_calls.get(key)
        if known is not None:
            return known
        if len(self._prepared_calls) >= _MOST_PREPARED_CALLS:
            self._prepared_calls = {}
        has_all = all(x.size for x in inputs.values()) and inputs
        call = self._engine.prepared_call(shapes, useful) if has_all else None
        if call is not None:
            self._prepared_calls[key] = call
        return call

    def _useful_threads(self, inputs: Mapping[str, Array], threads: int) -> int:
        """Return how many of the threads make a call with these inputs faster."""
        if threads == 1:
            return 1
        key = tuple(x.shape for x in inputs.values())
        work = self._works.get(key)
        if work is None:
            if len(self._works) >= _MOST_PREPARED_CALLS:
                self._works = {}
            shapes = dict(zip(inputs, key, strict=True))
            work = self._works[key] = work_of(self.spec, shapes, self._engine.in_numpy)
        return useful_threads("rows", work, threads)

    def replay(self, case: Case) -> dict[str, Array]:
        """Compute the outputs for a recorded case.

        Parameters
        ----------
        case
            Its inputs, state and lengths are used.

        Returns
        -------
        dict
            Arrays by the names of the outputs.
        """
        y = self.predict(case.inputs, state=case.state or None, lengths=case.lengths)
        return y if isinstance(y, dict) else {self.outputs[0].name: y}

    def with_free_steps(self: Self) -> Self:
        """Return the same model for any number of steps, if its layers allow it.

        Returns
        -------
        Model
            With the same weights in memory, and without recorded cases.

        Raises
        ------
        UnsupportedError
            With the layer that works for its number of steps only.

        Examples
        --------
        >>> import npylstm
        >>> npylstm.load("models/sine_keras/sine.npz").with_free_steps().inputs[0].shape
        ('batch', 'steps', 1)
        """
        spec = self.spec.with_free_steps()
        other = object.__new__(type(self))
        Predictor.__init__(other, spec, self._engine.with_spec(spec))
        return other

    @lazy_property
    def streaming(self) -> tuple[Plan, Engine]:
        """The stream plan of the model and its engine; see :meth:`session`."""
        plan: Plan = module("graph.stream_plan").plan_stream(self.spec)
        return plan, self._engine.with_spec(plan.spec)

    def stream(self, batch: int) -> Stream:
        """Return a zero state that calls of the whole model update; users call :meth:`session`.

        Parameters
        ----------
        batch
            Number of sequences.

        Returns
        -------
        Stream
        """
        return self._engine.stream(self.spec, batch)

    def _batch_size(self, inputs: Mapping[str, Array]) -> int:
        return self.spec.count_samples(inputs)

    def _state(self, state: StateArrays | None, batch: int) -> State:
        return bind_state(state, self.spec.state_shapes(), batch, self.spec.dtype)
