"""Back ends: how a spec is computed. Both offer the same small interface, :class:`Engine`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Protocol

from npylstm.errors import NpylstmError
from npylstm.layers.base import Array
from npylstm.spec import ModelSpec

__all__ = ["BACKENDS", "ENVIRONMENT_VARIABLE", "Engine", "State", "make_engine"]

State = Mapping[str, Mapping[str, Array]]

BACKENDS = ("auto", "numba", "numpy")
ENVIRONMENT_VARIABLE = "NPYLSTM_BACKEND"


class Engine(Protocol):
    """What a back end offers. Made once per model; safe to call from many threads."""

    name: str

    def run(
        self, inputs: Mapping[str, Array], state: State, lengths: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """Compute every output, and the state after the last step.

        ``inputs`` are checked arrays of the spec's type; ``state`` is complete; ``lengths``
        (batch,) are steps of each sequence, None where all are as long as the array.
        """
        ...


def make_engine(spec: ModelSpec, backend: str = "auto") -> Engine:
    """Lower a spec for a back end.

    Parameters
    ----------
    spec
        The model.
    backend
        ``"numba"``, ``"numpy"``, or ``"auto"``: what the environment variable
        ``NPYLSTM_BACKEND`` names, otherwise Numba where it is installed and NumPy where not.

    Raises
    ------
    NpylstmError
        If the name is unknown, or Numba is asked for by name and is not installed.
    """
    asked = f"backend {backend!r}"
    if backend == "auto":
        backend = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
        asked = f"{ENVIRONMENT_VARIABLE}={backend}"
    if backend not in BACKENDS:
        raise NpylstmError(f"{asked}: expected one of {', '.join(BACKENDS)}")
    if backend != "numpy" and importlib.util.find_spec("numba") is not None:
        from npylstm.engine.numba_engine import NumbaEngine

        return NumbaEngine(spec)
    if backend == "numba":
        raise NpylstmError(f"{asked}: Numba is not installed; pip install 'npylstm[jit]'")
    from npylstm.engine.numpy_engine import NumpyEngine

    return NumpyEngine(spec)
