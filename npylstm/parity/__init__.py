"""Parity: compare npylstm's outputs with the framework's, and diagnose differences."""

from __future__ import annotations

from npylstm.parity.comparison import Comparison, OutputParity
from npylstm.parity.diagnosing import diagnose
from npylstm.parity.diagnosis import Cause, Diagnosis
from npylstm.parity.report import ParityReport
from npylstm.parity.verification import verify

__all__ = ["Cause", "Comparison", "Diagnosis", "OutputParity", "ParityReport", "diagnose", "verify"]
