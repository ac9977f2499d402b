"""The type of arrays in signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["Array"]

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:  # importing numpy.typing takes as long as importing half of npylstm
    Array = np.ndarray
