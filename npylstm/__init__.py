"""npylstm: trained recurrent networks, run with NumPy alone, with the framework's numbers.

>>> import npylstm
>>> model = npylstm.load("models/sine_keras/sine.npz")
>>> model.inputs[0].shape
('batch', 5, 1)
"""

from __future__ import annotations

from npylstm.errors import (
    FormatError,
    NpylstmError,
    ParityError,
    ShapeError,
    StateError,
    UnsupportedError,
)
from npylstm.generating import decode
from npylstm.layers.lstm import Gates
from npylstm.model import Model, load
from npylstm.npz import save
from npylstm.parity import ParityReport
from npylstm.pool import Pool
from npylstm.session import Session
from npylstm.spec import ModelSpec

__all__ = [
    "FormatError",
    "Gates",
    "Model",
    "ModelSpec",
    "NpylstmError",
    "ParityError",
    "ParityReport",
    "Pool",
    "Session",
    "ShapeError",
    "StateError",
    "UnsupportedError",
    "__version__",
    "decode",
    "load",
    "save",
]

__version__ = "0.1.0"
