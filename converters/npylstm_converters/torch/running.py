"""Run a module as in inference, and leave it as it was. Imports torch when called."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["copied", "inference", "quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress torch's warnings that do not concern the user."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._export", "torch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def inference(module: Any) -> Iterator[None]:
    """Set a module to inference mode; restore on exit everything that running it may change."""
    import torch

    modules = list(module.modules())
    training = {m: m.training for m in modules}
    # forward may assign attributes and the values of buffers.
    plain = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    attributes = {m: {k: v for k, v in vars(m).items() if k[:1] != "_"} for m in plain}
    entries = {m: dict(m._buffers) for m in plain}
    numbers = {b: b.detach().clone() for b in module.buffers() if not b.is_meta}
    try:
        with contextlib.suppress(NotImplementedError):  # a program's module has no eval()
            module.eval()
        yield
    finally:
        for m in plain:
            for name in [k for k in vars(m) if k[:1] != "_" and k not in attributes[m]]:
                del vars(m)[name]
            vars(m).update(attributes[m])
            m._buffers.update(entries[m])
        for m, was in training.items():
            m.training = was
        with torch.no_grad():
            for buffer, values in numbers.items():
                buffer.copy_(values)


def copied(values: Any) -> Any:
    """Return copies of tensors: forward may write to its inputs."""
    import torch
    from torch.utils import _pytree as pytree

    return pytree.tree_map(
        lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, values
    )
