"""Run a module as in inference, and leave it as it was. Imports torch when called."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from npylstm_converters.torch.snapshots import Snapshot

__all__ = ["copied", "inference", "quiet", "register_dataclasses", "weights_kept"]


def register_dataclasses(value: Any) -> bool:
    """Tell torch the fields of dataclasses among inputs or outputs; return whether any was new."""
    from torch.utils import _pytree as pytree

    found = False
    for leaf in pytree.tree_leaves(value):
        if dataclasses.is_dataclass(leaf) and type(leaf) not in pytree.SUPPORTED_NODES:
            pytree.register_dataclass(type(leaf))
            register_dataclasses([getattr(leaf, f.name) for f in dataclasses.fields(leaf)])
            found = True
    return found


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
    # forward may assign attributes and the values of buffers, and write to what they hold.
    plain = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    before = Snapshot(module)
    entries = {m: (dict(m._buffers), dict(m._parameters)) for m in plain}
    lists = {m: [*m._flat_weights] for m in plain if isinstance(m, torch.nn.RNNBase)}
    try:
        with contextlib.suppress(NotImplementedError):  # a program's module has no eval()
            module.eval()
        yield
    finally:
        for m in plain:
            m._buffers.update(entries[m][0])
            weights = entries[m][1]
            if any(m._parameters.get(k) is not v for k, v in weights.items()) or (
                len(m._parameters) > len(weights)
            ):
                m._parameters.clear()
                m._parameters.update(weights)
        for m, flat in lists.items():
            m._flat_weights = flat
        for m, was in training.items():
            m.training = was
        before.restore()


def copied(values: Any) -> Any:
    """Return copies of tensors: forward may write to its inputs."""
    import torch
    from torch.utils import _pytree as pytree

    return pytree.tree_map(
        lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, values
    )


@contextlib.contextmanager
def weights_kept(active: bool) -> Iterator[None]:
    """Ignore, in this thread, that forward assigns tensors to weights or to their data."""
    if not active:
        yield
        return
    import torch

    thread, assign = threading.get_ident(), torch.nn.Module.__setattr__
    data = torch._C.TensorBase.data

    def keep(tensor: Any, value: Any) -> None:
        if threading.get_ident() != thread:
            data.__set__(tensor, value)

    def assign_others(module: Any, name: str, value: Any) -> None:
        is_weight = name in module._parameters and isinstance(value, torch.Tensor)
        if threading.get_ident() != thread or not is_weight:
            assign(module, name, value)

    torch.Tensor.data = property(data.__get__, keep)
    torch.nn.Module.__setattr__ = assign_others
    try:
        yield
    finally:
        del torch.Tensor.data
        torch.nn.Module.__setattr__ = assign
