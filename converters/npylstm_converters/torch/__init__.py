"""The PyTorch importer: state_dicts without torch, modules and exported programs with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npylstm_converters.torch.importer import IMPORTER, from_torch

if TYPE_CHECKING:
    from npylstm_converters.torch.callback import ExportNpz

__all__ = ["IMPORTER", "ExportNpz", "from_torch"]


def __getattr__(name: str) -> Any:
    if name == "ExportNpz":  # imports Lightning
        from npylstm_converters.torch.callback import ExportNpz

        return ExportNpz
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
