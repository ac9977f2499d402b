"""TensorFlow: SavedModel folders with Keras models, and checkpoints, read with NumPy."""

from __future__ import annotations

from npylstm_converters.tensorflow.importer import IMPORTER, from_savedmodel

__all__ = ["IMPORTER", "from_savedmodel"]
