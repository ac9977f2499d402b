"""The PyTorch importer: state_dicts without torch, modules and exported programs with it."""

from __future__ import annotations

from npylstm_converters.torch.importer import IMPORTER, from_torch

__all__ = ["IMPORTER", "from_torch"]
