"""Detects PyTorch's objects, and loads saved programs by torch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from npylstm import NpylstmError
from npylstm_converters.toolkit.runners import one_line
from npylstm_converters.torch.files import Kind
from npylstm_converters.torch.running import quiet, register_dataclasses
from npylstm_converters.torch.vetting import refuse_code_in_program

__all__ = [
    "arguments",
    "is_module",
    "is_program",
    "load_program",
    "load_script",
    "script_arguments",
    "unguarded",
]


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of an example; NumPy arrays become tensors."""
    import torch
    from torch.utils import _pytree as pytree

    if any(type(part).__name__ == "PackedSequence" for part in _parts(example)):
        raise NpylstmError(
            "example: is a PackedSequence, whose sizes depend on the lengths: let forward take the "
            "padded tensor and the lengths, and pack them itself"
        )
    register_dataclasses(example)
    example = pytree.tree_map(
        lambda v: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v, example
    )
    if isinstance(example, Mapping):
        return (), dict(example)
    return tuple(example) if isinstance(example, (tuple, list)) else (example,), {}


def _parts(example: Any) -> list[Any]:
    several = type(example) in (tuple, list)
    return [*example] if several else [*example.values()] if type(example) is dict else [example]


def is_module(source: object) -> bool:
    """Whether an object is a module; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def is_program(source: object) -> bool:
    """Whether an object is an exported program."""
    return type(source).__name__ == "ExportedProgram" and hasattr(source, "graph_signature")


def load_program(path: str | os.PathLike[str]) -> Any:
    """Return a saved program, loaded by torch.

    Raises
    ------
    NpylstmError
        If torch is not installed or cannot read it.
    """
    label = os.fspath(path)
    torch = _torch_for(label, Kind.PROGRAM)
    refuse_code_in_program(path)
    with _reading(label):
        return torch.export.load(label)


def load_script(path: str | os.PathLike[str], example: Any = None) -> Any:
    """Return TorchScript, loaded on the CPU.

    Raises
    ------
    NpylstmError
        If there is no example, torch is not installed, or cannot read it.
    """
    label = os.fspath(path)
    torch = _torch_for(label, Kind.TORCHSCRIPT)
    if example is None:
        raise NpylstmError(
            f"{label}: is TorchScript, which needs example inputs to be traced: give "
            "--example X.npz (in Python: example=)"
        )
    with _reading(label):
        return torch.jit.load(label, map_location="cpu").eval()


def _torch_for(label: str, kind: Kind) -> Any:
    try:
        import torch
    except ImportError:
        raise NpylstmError(
            f"{label}: is {kind.value}, which only torch can read: pip install torch"
        ) from None
    return torch


@contextlib.contextmanager
def _reading(label: str) -> Iterator[None]:
    with quiet():
        try:
            yield
        except Exception as error:  # torch may raise anything
            text = one_line(error, 300)
            raise NpylstmError(f"{label}: torch cannot load it: {text}") from None


def script_arguments(scripted: Any, example: Any) -> tuple[Any, ...]:
    """Return positional arguments of TorchScript's forward; examples by name are sorted.

    Raises
    ------
    NpylstmError
        If forward has no argument of such a name.
    """
    args, named = arguments(example)
    if not named:
        return args
    names = [a.name for a in scripted.forward.schema.arguments if a.name != "self"]
    if not set(named) <= set(names):
        raise NpylstmError(
            f"example: expected arrays for {', '.join(names)}, got {', '.join(named)}"
        )
    last = max(map(names.index, named))
    return tuple(named.get(name) for name in names[: last + 1])


def unguarded(program: Any) -> Any:
    """Return the module of a program without the guards on its input sizes."""
    try:
        return program.module(check_guards=False)
    except TypeError:  # older versions have no guards
        return program.module()
