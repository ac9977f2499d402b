"""A callback for Lightning's Trainer that exports and verifies an ``.npz`` in every epoch.

This module imports Lightning; ``npylstm_converters.torch`` imports it on access to ``ExportNpz``.
"""

from __future__ import annotations

import importlib
from typing import Any

from npylstm import NpylstmError
from npylstm_converters.exporting import Exporter

__all__ = ["ExportNpz"]


def _callback_class() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise NpylstmError("ExportNpz for PyTorch needs Lightning: pip install lightning")


_Callback: Any = _callback_class()


class ExportNpz(Exporter, _Callback):  # type: ignore[misc]
    """Export and verify a LightningModule after every training epoch.

    Parameters
    ----------
    path, every, on_break, cases
        As for :class:`~npylstm_converters.exporting.Exporter`.
    example
        An input to trace the module with, as for :func:`npylstm_converters.from_torch`; None: the
        module's ``example_input_array``.

    Examples
    --------
    ::

        Trainer(callbacks=[ExportNpz("model.npz", example=torch.zeros(2, 50, 3))])
    """

    def __init__(
        self, path: Any, every: int = 1, on_break: str = "warn", cases: int = 8, example: Any = None
    ) -> None:
        super().__init__(path, every, on_break, cases)
        self.example = example

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Export if this epoch is due; stop training if parity fails and ``on_break="stop"``."""
        epoch = trainer.current_epoch
        if not self.is_due(epoch) or trainer.sanity_checking:
            return
        example = self.example
        if example is None:
            example = getattr(pl_module, "example_input_array", None)
        training = pl_module.training
        pl_module.eval()
        try:
            may_go_on = self.export(epoch, pl_module, example=example)
        finally:
            pl_module.train(training)
        if not may_go_on:
            trainer.should_stop = True
