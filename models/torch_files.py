"""A module in every form in which PyTorch can save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from npylstm_converters.torch.tracing import quiet
from safetensors.torch import save_file


def save_every_form(module: torch.nn.Module, example: tuple[Any, ...], stem: Path) -> None:
    """Write ``stem.pt``, ``stem_legacy.pt``, ``stem.safetensors`` and ``stem.pt2``."""
    state = module.state_dict()
    torch.save(state, stem.with_suffix(".pt"))
    legacy = stem.with_name(f"{stem.name}_legacy.pt")
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    save_file(state, stem.with_suffix(".safetensors"))
    free = torch.utils._pytree.tree_map(
        lambda t: dict.fromkeys(range(t.ndim), torch.export.Dim.AUTO), example
    )
    with quiet():
        program = torch.export.export(module, example, dynamic_shapes=free)
    torch.export.save(program, stem.with_suffix(".pt2"))
