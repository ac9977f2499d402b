"""The back end that answers at once: NumPy while kernels are compiled, native from then on.

Only where a model needs kernels that are not on disk yet. Whole calls go through NumPy in the
meantime; whatever carries state waits for the native back end, so a stream never changes sides.
Where compiling fails, as with a NumPy that Numba does not know yet, it stays with NumPy.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping

from npylstm.engine import Engine, State, Stream, Streams
from npylstm.engine.numba_engine import NumbaEngine
from npylstm.engine.numpy_engine import NumpyEngine
from npylstm.layers.base import Array
from npylstm.spec import ModelSpec

__all__ = ["AutoEngine"]


class AutoEngine:
    """Compiles in a thread of its own, which ends when all is there, or the main thread ends."""

    def __init__(self, spec: ModelSpec, native: NumbaEngine) -> None:
        self._native = native
        self._now: Engine = NumpyEngine(spec)
        self._failed = False
        self._thread = threading.Thread(target=self._compile, name="npylstm-compile")
        self._thread.start()

    def _compile(self) -> None:
        try:
            for prepare in self._native.preparations():
                if not threading.main_thread().is_alive():
                    return
                prepare()
        except Exception as failure:
            self._failed = True
            warnings.warn(f"npylstm stays with NumPy: {failure}", RuntimeWarning, stacklevel=2)
            return
        self._now = self._native

    @property
    def name(self) -> str:
        return self._now.name

    def settle(self) -> Engine:
        self._thread.join()
        if self._now is not self._native and not self._failed:
            self._compile()  # the thread is not in a process that was forked
        return self._now

    def run(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        return self._now.run(inputs, state, mask)

    def shortcut(self, shape: tuple[int, ...], threads: int = 1) -> Callable[[Array], Array] | None:
        return self._now.shortcut(shape, threads)

    def rewired(self, spec: ModelSpec) -> Engine:
        return self.settle().rewired(spec)

    def stream(self, spec: ModelSpec, batch: int) -> Stream:
        return self.settle().stream(spec, batch)

    def streams(self, spec: ModelSpec, capacity: int) -> Streams:
        return self.settle().streams(spec, capacity)
