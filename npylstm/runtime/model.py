"""Model: what users call. ``predict`` is in :mod:`npylstm.runtime.predictor`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.errors import NpylstmError
from npylstm.graph.case import LONGEST_REPR
from npylstm.io import model_file
from npylstm.io.npz import Source
from npylstm.loading import module
from npylstm.printable import clipped
from npylstm.runtime.binding import bind, bind_functions, bind_mask
from npylstm.runtime.engines import make_engine
from npylstm.runtime.predictor import Predictor
from npylstm.spec import Case, ModelSpec

# Modules that only some programs need are imported at their first use, to start faster.
if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.ops.external import Function
    from npylstm.parity import ParityReport
    from npylstm.quantization import Quantization
    from npylstm.runtime.binding import Inputs, StateArrays
    from npylstm.runtime.generating import Feed, Window
    from npylstm.runtime.pool import Pool
    from npylstm.runtime.session import Session

__all__ = ["Model", "load"]


def load(
    source: Source,
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
        ``"native"``: the kernels that the wheel contains, compiled for this processor;
        ``"numba"``: kernels compiled here by Numba, in some seconds, or found in its cache;
        ``"numpy"``; or ``"auto"``: the value of the environment variable ``NPYLSTM_BACKEND``;
        without it the first of the three that can be used. ``npylstm doctor`` says which and why.
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
        If the back end cannot be used; with ``verify``, if the file holds no cases.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> load("models/sine_keras/sine.npz").outputs
    (TensorSpec(name='output', shape=('batch', 1), integer=False),)
    """
    model = Model(model_file.read(source), backend, custom)
    if verify:
        try:
            model.verify().check()
        except NpylstmError as error:
            if isinstance(source, (str, os.PathLike)):
                raise type(error)(f"{os.fspath(source)}: {error}") from None
            raise
    return model


class Model(Predictor):
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
        bound = bind_functions(spec, custom or {})
        super().__init__(bound, make_engine(bound, backend))

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
        page: str = module("parity.page.notebook").model_html(self.spec, self.backend)
        return page

    def warm_up(self) -> None:
        """Do nothing: kernels are compiled, or loaded, when a model is loaded."""

    def session(self, batch_size: int = 1, *, nan: str = "pass") -> Session:
        """Return a session, for a live stream.

        Parameters
        ----------
        batch_size, nan
            As for :class:`npylstm.Session`.

        Returns
        -------
        Session

        Raises
        ------
        UnsupportedError
            With every layer that cannot run on a stream.
        """
        session: Session = module("runtime.session").Session(self, batch_size, nan=nan)
        return session

    def pool(self, capacity: int, *, nan: str = "pass") -> Pool:
        """Return a pool of live streams, by key.

        Parameters
        ----------
        capacity, nan
            As for :class:`npylstm.Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        UnsupportedError
            With every layer that cannot run on a stream.
        """
        pool: Pool = module("runtime.pool").Pool(self, capacity, nan=nan)
        return pool

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

        Examples
        --------
        >>> import npylstm
        >>> model = npylstm.load("models/sine_keras/sine.npz")
        >>> model.forecast(np.sin(np.arange(5.0))[None, :, None], steps=20).shape
        (1, 20, 1)
        """
        forecast = module("runtime.generating").forecast
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

        Raises
        ------
        ShapeError, StateError
            As for :meth:`predict`.

        Examples
        --------
        >>> import npylstm
        >>> gates = npylstm.load("models/sine_keras/sine.npz").trace(np.zeros((2, 5, 1)))
        >>> gates["lstm"].c_tilde.shape
        (2, 5, 100)
        """
        engine = module("runtime.numpy_engine").NumpyEngine(self.spec)
        inputs = bind(x, self.inputs, self.spec.dtype, fixed_steps=self.spec.fixed_steps)
        batch = self._batch_size(inputs)
        moves = bind_mask(mask, lengths, self.spec, inputs, batch)
        gates: dict[str, Any] = engine.trace(inputs, self._state(state, batch), moves)
        return gates

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

        Examples
        --------
        >>> import npylstm
        >>> npylstm.load("models/sine_keras/sine.npz").verify().passed
        True
        """
        cases = self.spec.cases if cases is None else tuple(cases)
        if not cases:
            raise NpylstmError(
                f"{self.spec.name}: holds no recorded cases; convert it where its framework is "
                "installed, or compare with `npylstm verify MODEL.npz --against SOURCE`"
            )
        report: ParityReport = module("parity").verify(self, cases, framework)
        return report

    def astype(self, dtype: npt.DTypeLike) -> Model:
        """Return the same model with weights, inputs and outputs of another dtype.

        Parameters
        ----------
        dtype
            ``"float32"`` or ``"float64"``.

        Returns
        -------
        Model

        Raises
        ------
        FormatError
            For any other dtype.
        """
        return Model(self.spec.astype(str(np.dtype(dtype))), self.backend)

    def quantize(
        self, type: str, layers: Iterable[str] | None = None, keep: Iterable[str] = ()
    ) -> Model:
        """Return the same model with weights in fewer bits, and measure what that costs.

        Parameters
        ----------
        type, layers, keep
            As in :meth:`npylstm.spec.ModelSpec.quantize`.

        Returns
        -------
        Model
            Its :attr:`quantization` holds sizes and errors.

        Raises
        ------
        NpylstmError, FormatError
            As :meth:`npylstm.spec.ModelSpec.quantize`.

        Examples
        --------
        >>> import npylstm
        >>> small = npylstm.load("models/sine_keras/sine.npz").quantize("int8")
        >>> small.quantization.after < small.quantization.before / 3
        True
        """
        quantized = module("quantizing").quantize(self.spec, type, layers, keep, self.backend)
        return Model(quantized, self.backend)

    @property
    def quantization(self) -> Quantization | None:
        """How the weights are stored, and what that costs; None if they are not quantized."""
        return self.spec.quantization

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to an ``.npz``, as :func:`npylstm.save`.

        Parameters
        ----------
        path
            The file to create, or to replace when the new one is complete.
        """
        model_file.save(self.spec, path)

    def summary(self) -> str:
        """Return layers, shapes, sizes and origin as text.

        Returns
        -------
        str
            Several lines, for ``print``.
        """
        text: str = module("summary").summarise(self.spec, f", {self.backend} back end")
        return text
