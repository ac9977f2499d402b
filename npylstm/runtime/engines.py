"""Back ends: how a spec is computed. Both offer the same small interface, :class:`Engine`."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Protocol

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.spec import ModelSpec

__all__ = [
    "BACKENDS", "ENVIRONMENT_VARIABLE", "Engine", "State", "Stepper", "Stream", "Streams",
    "make_engine",
]  # fmt: skip

State = Mapping[str, Mapping[str, Array]]

BACKENDS = ("auto", "numba", "numpy")
ENVIRONMENT_VARIABLE = "NPYLSTM_BACKEND"


class Engine(Protocol):
    """What a back end offers. Made once per model; safe to call from many threads."""

    @property
    def name(self) -> str:
        """Which back end computes."""
        ...

    def run(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """Compute every output, and the state after the last step.

        ``inputs`` are checked arrays of the spec's type; ``state`` is complete; ``mask``
        (batch, steps), booleans, says which steps count for recurrent layers; None: all.
        """
        ...

    def shortcut(self, shape: tuple[int, ...], threads: int = 1) -> Callable[[Array], Array] | None:
        """Lay out calls with one input of this shape and one output, the state beginning at zero.

        The inputs are of the spec's type and checked. Threads share the rows, or the units of a
        single large sequence. None where there is no shorter way than :meth:`run`.
        """
        ...

    def rewired(self, spec: ModelSpec) -> Engine:
        """Make an engine for a spec of the same layers, or of some of them; weights are shared."""
        ...

    def stream(self, spec: ModelSpec, batch: int) -> Stream:
        """Make the state of ``batch`` sequences, all zeros, that is carried from call to call."""
        ...

    def streams(self, spec: ModelSpec, capacity: int) -> Streams:
        """Make the states of many streams, of which any may advance together."""
        ...


class Stream(Protocol):
    """State that calls carry on. Belongs to one thread at a time."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output, in arrays of their own, and carry the state on."""
        ...

    def read(self) -> dict[str, dict[str, Array]]:
        """Copy the state."""
        ...

    def write(self, state: State) -> None:
        """Replace the state; it is complete and checked."""
        ...

    def stepper(self, sizes: Mapping[str, tuple[int, ...]]) -> Stepper | None:
        """Lay out calls with inputs of these sizes in buffers that stay; None if that cannot be."""
        ...

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> Array | None:
        """Run ``steps`` times, each output being the newest step of the next input.

        Parameters
        ----------
        x
            The first input ``(batch, window, features)``.
        last
            Where the last step's output begins in a row of outputs, in elements.
        carry
            Carry the state on, or begin each time as the stream now stands.

        Returns
        -------
        Array
            ``(steps, batch, features)``; None if the model has no loop of its own.
        """
        ...


class Stepper(Protocol):
    """A call laid out: fill ``x``, run, read ``y``; all by name."""

    x: dict[str, Array]
    y: dict[str, Array]

    def run(self) -> None:
        """Compute ``y`` from ``x`` and carry the stream's state on."""
        ...


class Streams(Protocol):
    """States of many streams, one row each."""

    def advance(self, rows: Array, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Advance these rows (n,), each by its row of the inputs."""
        ...

    def read(self, rows: Array) -> dict[str, dict[str, Array]]:
        """Copy the states of these rows."""
        ...

    def write(self, rows: Array, state: State) -> None:
        """Replace the states of these rows; they are complete and checked."""
        ...


def make_engine(spec: ModelSpec, backend: str = "auto") -> Engine:
    """Lower a spec for a back end.

    Parameters
    ----------
    spec
        The model.
    backend
        ``"numba"``, ``"numpy"``, or ``"auto"``: what the environment variable
        ``NPYLSTM_BACKEND`` names, otherwise Numba where it is installed and can compile, NumPy
        where not. Kernels are compiled here, or read from the disk.

    Returns
    -------
    Engine
        The one that computes as long as the model lives.

    Raises
    ------
    NpylstmError
        If the name is unknown, or Numba is requested by name and is not installed or cannot
        compile.
    """
    asked = f"backend {backend!r}"
    if backend == "auto":
        backend = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
        asked = f"{ENVIRONMENT_VARIABLE}={backend}"
    if backend not in BACKENDS:
        raise NpylstmError(f"{asked}: expected one of {', '.join(BACKENDS)}")
    if backend != "numpy" and importlib.util.find_spec("numba") is not None:
        from npylstm.runtime.numba_engine import NumbaEngine

        engine = NumbaEngine(spec)
        try:
            engine.compile()
            return engine
        except Exception as failure:
            if backend == "numba":
                raise
            message = f"{spec.name} is computed with NumPy: {failure}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
    elif backend == "numba":
        raise NpylstmError(f"{asked}: Numba is not installed; pip install 'npylstm[jit]'")
    from npylstm.runtime.numpy_engine import NumpyEngine

    return NumpyEngine(spec)
