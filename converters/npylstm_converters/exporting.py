"""The export after an epoch, shared by all callbacks: convert, record, verify, write."""

from __future__ import annotations

import os
import warnings
from typing import Any

import npylstm
from npylstm import Model, NpylstmError, ParityReport
from npylstm_converters.comparing import compare_with_runner
from npylstm_converters.recording import record
from npylstm_converters.registry import find_importer

__all__ = ["Exporter"]

_WAYS = ("warn", "stop")


class Exporter:
    """Exports a model every few epochs during training.

    Parameters
    ----------
    path
        The ``.npz`` to write; it is replaced only if parity holds.
    every
        Number of epochs between exports.
    on_break
        If parity does not hold or the model cannot be converted: ``"warn"`` and continue, or
        ``"stop"`` the training.
    cases
        Number of framework runs to record in the file.

    Raises
    ------
    NpylstmError
        If a parameter is out of range.
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int = 1, on_break: str = "warn", cases: int = 8
    ) -> None:
        if every < 1:
            raise NpylstmError(f"every: expected 1 or more, got {every}")
        if on_break not in _WAYS:
            raise NpylstmError(f"on_break: expected one of {', '.join(_WAYS)}, got {on_break!r}")
        self.path, self.every, self.on_break, self.cases = os.fspath(path), every, on_break, cases
        self.report: ParityReport | None = None

    def is_due(self, epoch: int) -> bool:
        """Return whether to export after an epoch, counted from 0."""
        return (epoch + 1) % self.every == 0

    def export(self, epoch: int, model: Any, **options: Any) -> bool:
        """Export; return whether the training may continue."""
        self.report, problem = None, ""
        try:
            importer = find_importer(model)
            spec = importer.convert(model, **options)
            runner = importer.runner(model, spec, **options)
            spec = record(spec, runner, self.cases)
            self.report = compare_with_runner(Model(spec), runner, spec.cases)
            if self.report.passed:
                npylstm.save(spec, self.path)
                return True
            problem = f"{self.report.verdict}\n{self.report.diagnosis}"
        except NpylstmError as error:
            problem = str(error)
        warnings.warn(
            f"{self.path}: not written after epoch {epoch + 1}: {problem}", RuntimeWarning,
            stacklevel=3,
        )  # fmt: skip
        return self.on_break == "warn"
