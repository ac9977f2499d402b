"""Back ends, with one interface, :class:`Engine`, and the choice between them."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.graph.state import State
from npylstm.loading import LOADING
from npylstm.spec import ModelSpec

if TYPE_CHECKING:
    from npylstm.kernels.library import KernelLibrary, Unavailable
    from npylstm.runtime.streams import Streams

__all__ = [
    "BACKENDS", "ENVIRONMENT_VARIABLE", "LIBRARIES", "Engine", "Stepper", "Stream",
    "default_backend", "make_engine",
]  # fmt: skip


BACKENDS = ("auto", "native", "numba", "numpy")
ENVIRONMENT_VARIABLE = "NPYLSTM_BACKEND"


class Engine(Protocol):
    """The interface of a back end. Made once per model; safe to call from many threads."""

    @property
    def name(self) -> str:
        """Name of the back end."""
        ...

    def run(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None = None
    ) -> tuple[dict[str, Array], State]:
        """Compute every output, and the state after the last step.

        ``inputs`` are checked arrays of the spec's dtype. ``state`` is complete. ``mask``
        (batch, steps) is True where recurrent layers compute a step; None: everywhere.
        """
        ...

    def prepared_call(
        self, shape: tuple[int, ...], threads: int = 1
    ) -> Callable[[Array], Array] | None:
        """Prepare calls with one input of this shape and one output, from zero initial state.

        The inputs are checked and of the spec's dtype. Threads share the rows, or the units of a
        single large sequence. None if there is no faster way than :meth:`run`.
        """
        ...

    def with_spec(self, spec: ModelSpec) -> Engine:
        """Return an engine for a spec with the same layers, or some of them; weights are shared."""
        ...

    def stream(self, spec: ModelSpec, batch: int) -> Stream:
        """Return the zero state of ``batch`` sequences, kept from call to call."""
        ...

    def streams(self, spec: ModelSpec, capacity: int) -> Streams:
        """Return the states of up to ``capacity`` streams; any of them may advance together."""
        ...


class Stream(Protocol):
    """State that calls update. Used by one thread at a time."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output, in new arrays, and update the state."""
        ...

    def read(self) -> State:
        """Return a copy of the state."""
        ...

    def write(self, state: State) -> None:
        """Replace the state with a complete, checked one."""
        ...

    def stepper(self, sizes: Mapping[str, tuple[int, ...]]) -> Stepper | None:
        """Prepare calls with inputs of these sizes, in fixed buffers; None if not supported."""
        ...

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> Array | None:
        """Run ``steps`` times; the last step of each output is appended to the next input.

        Parameters
        ----------
        x
            The first input ``(batch, window, features)``.
        last
            Offset of the last step in a row of outputs, in elements.
        carry
            Update the state from run to run, or start each run from the current state.

        Returns
        -------
        Array
            ``(steps, batch, features)``; None if not supported.
        """
        ...


class Stepper(Protocol):
    """A prepared call: fill ``x``, run, read ``y``; all by name."""

    x: dict[str, Array]
    y: dict[str, Array]

    def run(self) -> None:
        """Compute ``y`` from ``x`` and update the stream's state."""
        ...


def make_engine(spec: ModelSpec, backend: str = "auto") -> Engine:
    """Return the engine of a back end, as :func:`npylstm.load` chooses it.

    Raises
    ------
    NpylstmError
        If the name is unknown, or a back end is requested by name and cannot be used.
    """
    asked = f"backend {backend!r}"
    if backend == "auto":
        backend = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
        asked = f"{ENVIRONMENT_VARIABLE}={backend}"
    if backend not in BACKENDS:
        raise NpylstmError(f"{asked}: expected one of {', '.join(BACKENDS)}")
    with LOADING:  # imports, and kernels are loaded or compiled
        return _first_engine(spec, backend, asked)


def _first_engine(spec: ModelSpec, backend: str, asked: str) -> Engine:
    """Return the engine of a back end; ``"auto"``: the first that can be used."""
    from npylstm.kernels.library import Unavailable

    for name, find in LIBRARIES.items():
        if backend not in ("auto", name):
            continue
        library = find()
        if isinstance(library, Unavailable):
            if backend == name:
                raise NpylstmError(f"{asked}: {library.reason}")
            if library.is_fault:
                _warn(f"npylstm computes without the {name} back end: {library.reason}")
            continue
        from npylstm.runtime.kernel_engine import KernelEngine

        try:
            return KernelEngine(spec, library)
        except Exception as failure:
            if backend == name:
                raise
            _warn(f"{spec.name} is computed without the {name} back end: {failure}")
    from npylstm.runtime.numpy_engine import NumpyEngine

    return NumpyEngine(spec)


def _native_library() -> KernelLibrary | Unavailable:
    from npylstm.native.shipped import shipped_library

    return shipped_library()


def _numba_library() -> KernelLibrary | Unavailable:
    if importlib.util.find_spec("numba") is None:
        from npylstm.kernels.library import Unavailable

        return Unavailable("Numba is not installed; pip install 'npylstm[jit]'")
    from npylstm.native.compiled import numba_library

    return numba_library()


# The libraries of kernels by the name of the back end, in the order in which they are tried.
LIBRARIES: dict[str, Callable[[], KernelLibrary | Unavailable]] = {
    "native": _native_library,
    "numba": _numba_library,
}


def default_backend() -> tuple[str, str]:
    """Return the back end that ``"auto"`` takes on this machine, and where its kernels come from.

    Numba is not asked whether it can compile.
    """
    from npylstm.kernels.library import Unavailable

    asked = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    reasons = []
    with LOADING:
        for name, find in LIBRARIES.items():
            if asked in ("auto", name):
                library = find()
                if not isinstance(library, Unavailable):
                    return name, library.description
                reasons.append(f"{name}: {library.reason}")
    if asked in LIBRARIES:
        return asked, f"{ENVIRONMENT_VARIABLE}={asked}, cannot be used: {reasons[0]}"
    return "numpy", "; ".join(reasons) or f"{ENVIRONMENT_VARIABLE}={asked}"


def _warn(message: str) -> None:
    """Warn at the line of the user's that loads the model."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("npylstm."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
