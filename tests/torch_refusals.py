"""Modules, and what the conversion of them says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn

from npylstm import Model, NpylstmError, UnsupportedError


def build(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A module with this forward and these submodules."""
    made = type("Forward", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return torch.as_tensor(values.astype(np.float32))


def lstm(batch_first: bool = True, **options: Any) -> nn.LSTM:
    return nn.LSTM(3, 6, batch_first=batch_first, **options)


def reasons(module: Any, example: Any) -> tuple[str, ...]:
    with pytest.raises(UnsupportedError) as caught:
        nc.from_torch(module, example)
    for reason in caught.value.reasons:
        assert reason in str(caught.value)
    return tuple(caught.value.reasons)


def converted(module: Any, example: Any, pattern: str = "") -> Any:
    """The spec; or None if the module is refused, for a reason that fits the pattern."""
    try:
        return nc.from_torch(module, example)
    except NpylstmError as error:
        reason = str(error)
    assert re.search(pattern, reason), reason
    return None


def outputs(model: Model, *xs: torch.Tensor) -> list[Any]:
    arrays = [x.numpy() for x in xs]
    y = model.predict(arrays if len(arrays) > 1 else arrays[0])
    return list(y.values()) if isinstance(y, dict) else [y]


def expected(module: nn.Module, *xs: torch.Tensor) -> list[Any]:
    with torch.no_grad():
        y = module.eval()(*xs)
    return [v.numpy() for v in (y if isinstance(y, tuple) else (y,))]
