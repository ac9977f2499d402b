"""A callback for ``model.fit`` that exports and verifies an ``.npz`` in every epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npylstm_converters.exporting import Exporter

__all__ = ["ExportNpz"]


class ExportNpz(Exporter):
    """Export and verify a Keras model after every epoch.

    For Keras 3 and tf_keras, which call the same hooks. Parameters are those of
    :class:`~npylstm_converters.exporting.Exporter`; ``report`` holds the last parity report.

    Examples
    --------
    ::

        model.fit(x, y, epochs=20, callbacks=[ExportNpz("model.npz", every=5)])
    """

    # This class needs no Keras import: both look up hooks by name.
    _supports_tf_logs = True
    async_safe = True

    def set_params(self, params: Any) -> None:
        """Ignore the arguments of ``fit``."""

    def set_model(self, model: Any) -> None:
        """Store the model under training."""
        self.model = model

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Export if this epoch is due; stop training if parity fails and ``on_break="stop"``."""
        if self.is_due(epoch) and not self.export(epoch, self.model):
            self.model.stop_training = True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("on_"):
            return _nothing
        if name.startswith("_implements_"):
            return _no
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _nothing(*arguments: Any, **options: Any) -> None:
    """Ignore the other hooks."""


def _no() -> bool:
    """Return False: there are no hooks for batches."""
    return False
