"""TensorFlow.js: layers models, ``model.json`` with its shards of weights, read with NumPy."""

from __future__ import annotations

from npylstm_converters.tfjs.importer import IMPORTER, from_tfjs

__all__ = ["IMPORTER", "from_tfjs"]
