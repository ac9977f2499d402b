"""Word segmentation of ICU: ``weights.json`` of lstm_word_segmentation, read with NumPy alone."""

from __future__ import annotations

from npylstm_converters.icu.importer import IMPORTER, from_icu

__all__ = ["IMPORTER", "from_icu"]
