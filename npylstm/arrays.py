"""The type of arrays in signatures, and arrays of zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["Array", "zeros"]

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:  # importing numpy.typing takes as long as importing half of npylstm
    Array = np.ndarray


def zeros(state_shapes: Mapping[str, tuple[int, ...]], batch: int, dtype: Any) -> dict[str, Array]:
    """Return the zero initial state."""
    return {name: np.zeros((batch, *shape), dtype) for name, shape in state_shapes.items()}
