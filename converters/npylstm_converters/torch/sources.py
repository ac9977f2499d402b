"""Detects PyTorch's objects, and loads saved programs by torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm import NpylstmError
from npylstm_converters.toolkit.runners import one_line
from npylstm_converters.torch.files import Kind
from npylstm_converters.torch.vetting import refuse_code_in_program

__all__ = [
    "arguments",
    "is_module",
    "is_program",
    "load_program",
    "load_script",
    "program_of_script",
    "script_arguments",
    "unguarded",
]


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of an example; NumPy arrays become tensors."""
    import torch
    from torch.utils import _pytree as pytree

    example = pytree.tree_map(
        lambda v: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v, example
    )
    if isinstance(example, Mapping):
        return (), dict(example)
    return tuple(example) if isinstance(example, (tuple, list)) else (example,), {}


def is_module(source: object) -> bool:
    """Whether an object is a module; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def is_program(source: object) -> bool:
    """Whether an object is an exported program."""
    return type(source).__name__ == "ExportedProgram" and hasattr(source, "graph_signature")


def load_program(path: str | os.PathLike[str], kind: Kind, example: Any) -> Any:
    """Return a saved program, loaded by torch.

    Raises
    ------
    NpylstmError
        If torch is not installed or cannot read it.
    """
    label = os.fspath(path)
    try:
        import torch
    except ImportError:
        raise NpylstmError(
            f"{label}: is {kind.value}, which only torch can read: pip install torch"
        ) from None
    from npylstm_converters.torch.tracing import quiet

    if kind is Kind.TORCHSCRIPT and example is None:
        raise NpylstmError(
            f"{label}: is TorchScript, which needs example inputs to be traced: give "
            "--example X.npz (in Python: example=)"
        )
    with quiet():
        try:
            if kind is Kind.PROGRAM:
                refuse_code_in_program(path)
                return torch.export.load(label)
            return program_of_script(load_script(path), example)
        except NpylstmError as error:
            if kind is Kind.PROGRAM:
                raise
            raise NpylstmError(f"{label}: torch cannot load it: {error}") from None
        except Exception as error:  # torch may raise anything
            text = one_line(error, 300)
            raise NpylstmError(f"{label}: torch cannot load it: {text}") from None


def load_script(path: str | os.PathLike[str]) -> Any:
    """Return TorchScript, loaded on the CPU."""
    import torch

    return torch.jit.load(os.fspath(path), map_location="cpu").eval()


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


def program_of_script(scripted: Any, example: Any) -> Any:
    """Return the program of TorchScript from torch's converter."""
    from torch._export.converter import TS2EPConverter

    from npylstm_converters.torch.tracing import quiet

    with quiet():
        try:
            given = script_arguments(scripted, example)
            return TS2EPConverter(scripted.eval(), given, {}).convert()
        except NpylstmError:
            raise
        except Exception as error:  # torch may raise anything
            text = one_line(error, 300)
            raise NpylstmError(f"torch cannot make a program of the TorchScript: {text}") from None


def unguarded(program: Any) -> Any:
    """Return the module of a program without the guards on its input sizes."""
    try:
        return program.module(check_guards=False)
    except TypeError:  # older versions have no guards
        return program.module()
