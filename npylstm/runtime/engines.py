"""Back ends, with one interface, :class:`Engine`, and the choice between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.graph.state import State
from npylstm.kernels.library import KernelLibrary, Unavailable
from npylstm.loading import LOADING, fork_after_loading, module, warn_caller
from npylstm.spec import ModelSpec

if TYPE_CHECKING:
    from npylstm.runtime.streams import Streams

__all__ = [
    "BACKENDS", "ENVIRONMENT_VARIABLE", "LIBRARIES", "Engine", "Stepper", "Stream",
    "find_backends", "make_engine",
]  # fmt: skip


BACKENDS = ("auto", "native", "numba", "numpy")
ENVIRONMENT_VARIABLE = "NPYLSTM_BACKEND"


class Engine(Protocol):
    """The interface of a back end. Made once per model; safe to call from many threads."""

    @property
    def name(self) -> str:
        """Name of the back end."""
        ...

    @property
    def in_numpy(self) -> Collection[str]:
        """Names of the layers that NumPy computes."""
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
        self, shapes: Sequence[tuple[int, ...]], threads: int = 1
    ) -> Callable[[Sequence[Array]], list[Array]] | None:
        """Prepare calls with inputs of these shapes, from zero initial state.

        The inputs are checked and of the spec's dtype, or integers for :attr:`checked_inputs`.
        Threads share the rows, or the units of a single large sequence. None if there is no faster
        way than :meth:`run`.
        """
        ...

    @property
    def checked_inputs(self) -> frozenset[str]:
        """Names of the inputs whose integers prepared calls and steppers check themselves."""
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
    _check_name(backend, asked)
    for name, find in LIBRARIES.items():
        if backend not in ("auto", name):
            continue
        library = find()
        if isinstance(library, Unavailable):
            if backend == name:
                raise NpylstmError(f"{asked}: {library.reason}")
            if library.is_fault:
                warn_caller(f"npylstm computes without the {name} back end: {library.reason}")
            continue
        try:
            with LOADING:  # kernels are compiled, or looked up
                engine: Engine = module("runtime.kernel_engine").KernelEngine(spec, library)
            return engine
        except Exception as failure:
            if backend == name:
                raise
            warn_caller(f"{spec.name} is computed without the {name} back end: {failure}")
    engine = module("runtime.numpy_engine").NumpyEngine(spec)
    return engine


def _prepare_for_numba() -> None:
    """Make forks safe while Numba is imported: it uses modules with locks for forks."""
    fork_after_loading("logging", "concurrent.futures.thread")


def _native_library() -> KernelLibrary | Unavailable:
    with LOADING:
        return module("native.shipped").shipped_library()  # type: ignore[no-any-return]


def _numba_library() -> KernelLibrary | Unavailable:
    if find_spec("numba") is None:
        return Unavailable("Numba is not installed; pip install 'npylstm[jit]'")
    _prepare_for_numba()
    with LOADING:
        return module("native.compiled").numba_library()  # type: ignore[no-any-return]


# The libraries of kernels by the name of the back end, in the order in which they are tried.
LIBRARIES: dict[str, Callable[[], KernelLibrary | Unavailable]] = {
    "native": _native_library,
    "numba": _numba_library,
}


def find_backends() -> dict[str, KernelLibrary | Unavailable | None]:
    """Return the back ends that may compute, the one that ``"auto"`` takes at the end.

    Returns
    -------
    dict
        Libraries by name, or why there is none; None for NumPy. Only the last one can be used.

    Raises
    ------
    NpylstmError
        If ``NPYLSTM_BACKEND`` is unknown.
    """
    backend = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    _check_name(backend, f"{ENVIRONMENT_VARIABLE}={backend}")
    found: dict[str, KernelLibrary | Unavailable | None] = {}
    for name, find in LIBRARIES.items():
        if backend in ("auto", name):
            found[name] = find()
            if not isinstance(found[name], Unavailable):
                return found
    return found if backend in LIBRARIES else {**found, "numpy": None}


def _check_name(backend: str, asked: str) -> None:
    if backend not in BACKENDS:
        raise NpylstmError(f"{asked}: expected one of {', '.join(BACKENDS)}")


# Where Numba will compute, now: later, another thread might fork during the import of logging.
if not (Path(__file__).parents[1] / "native" / "kernels.json").exists() and find_spec("numba"):
    _prepare_for_numba()
