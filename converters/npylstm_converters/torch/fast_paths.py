"""PyTorch's fast path of transformer encoders, which gives other numbers at padded steps.

Imports torch when called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from npylstm_converters.torch.running import copied, inference, quiet

__all__ = ["FAST_PATH", "hides_steps", "without_fast_paths"]

FAST_PATH = (
    "npylstm computes the steps that src_key_padding_mask hides as PyTorch does without its fast "
    "path (torch.backends.mha.set_fastpath_enabled(False)); the fast path of "
    "nn.TransformerEncoder, in inference, sets them to zero"
)


def hides_steps(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether forward gives a padding mask to a transformer encoder, for this example."""
    import torch
    from torch import nn

    kinds = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
    encoders = [m for m in module.modules() if isinstance(m, kinds)]
    if not encoders:
        return False
    masks: list[Any] = []

    def note(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        at = 2  # forward(src, mask, src_key_padding_mask)
        masks.append(named.get("src_key_padding_mask", given[at] if len(given) > at else None))

    with contextlib.ExitStack() as stack:
        for encoder in encoders:
            handle = encoder.register_forward_pre_hook(note, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(inference(module))
        stack.enter_context(quiet())
        stack.enter_context(torch.no_grad())
        given, named = copied((args, kwargs))
        module(*given, **named)
    return any(mask is not None for mask in masks)


@contextlib.contextmanager
def without_fast_paths() -> Iterator[None]:
    """Run transformer encoders as while training, without dropout: as they are traced."""
    import torch

    mha = torch.backends.mha
    enabled = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(enabled)
