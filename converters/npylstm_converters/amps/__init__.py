"""Captures of guitar amplifiers: NAM, AIDA-X and RTNeural, GuitarML; read with NumPy alone."""

from __future__ import annotations

from npylstm_converters.amps.importer import IMPORTER, from_amp

__all__ = ["IMPORTER", "from_amp"]
