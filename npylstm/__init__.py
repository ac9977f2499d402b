"""npylstm runs trained recurrent networks in NumPy and reproduces the framework's outputs.

>>> import npylstm
>>> model = npylstm.load("models/sine_keras/sine.npz")
>>> model.inputs[0].shape
('batch', 5, 1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npylstm import loading
from npylstm.errors import (
    FormatError,
    NpylstmError,
    ParityError,
    ShapeError,
    StateError,
    UnsupportedError,
)
from npylstm.io.model_file import save
from npylstm.runtime.model import Model, load
from npylstm.spec import Case, ModelSpec

if TYPE_CHECKING:
    from npylstm.ops.cells import Gates
    from npylstm.parity import Cause, Diagnosis, ParityReport, diagnose
    from npylstm.runtime.generating import decode
    from npylstm.runtime.pool import Pool
    from npylstm.runtime.pool_rows import Slots
    from npylstm.runtime.session import Session

__all__ = [
    "Case",
    "Cause",
    "Diagnosis",
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
    "Slots",
    "StateError",
    "UnsupportedError",
    "__version__",
    "decode",
    "diagnose",
    "load",
    "save",
]

__version__ = "0.1.0"

# Many programs never use these names; each is imported at its first use.
_LATER = {
    "Cause": "parity.diagnosis", "Diagnosis": "parity.diagnosis", "decode": "runtime.generating",
    "diagnose": "parity", "Gates": "ops.cells", "ParityReport": "parity", "Pool": "runtime.pool",
    "Session": "runtime.session", "Slots": "runtime.pool_rows",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(loading.module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
