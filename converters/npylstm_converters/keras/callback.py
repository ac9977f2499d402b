"""A callback for ``model.fit``: every epoch leaves a verified ``.npz``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npylstm_converters.exporting import Exporter

__all__ = ["ExportNpz"]


class ExportNpz(Exporter):
    """Export and verify a Keras model after every epoch.

    For Keras 3 and tf_keras, whose callbacks are called alike. Parameters are those of
    :class:`~npylstm_converters.exporting.Exporter`; ``report`` holds the last parity report.

    Examples
    --------
    ::

        model.fit(x, y, epochs=20, callbacks=[ExportNpz("model.npz", every=5)])
    """

    # Neither Keras is imported here: both ask a callback for hooks by name.
    _supports_tf_logs = True
    async_safe = True

    def set_params(self, params: Any) -> None:
        """Take what ``fit`` was called with; nothing of it is needed."""

    def set_model(self, model: Any) -> None:
        """Take the model under training."""
        self.model = model

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Export where it is due; stop the training where parity broke and that was requested."""
        if self.is_due(epoch) and not self.export(epoch, self.model):
            self.model.stop_training = True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("on_"):
            return _nothing
        if name.startswith("_implements_"):
            return _no
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _nothing(*arguments: Any, **options: Any) -> None:
    """Do nothing at the other hooks."""


def _no() -> bool:
    """Answer that there is no hook for batches."""
    return False
