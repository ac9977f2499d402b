"""Parity: how far npylstm is from the framework, whether rounding explains it, and if not, what."""

from __future__ import annotations

from npylstm.parity.comparison import Comparison, OutputParity
from npylstm.parity.report import ParityReport
from npylstm.parity.verification import verify

__all__ = ["Comparison", "OutputParity", "ParityReport", "verify"]
