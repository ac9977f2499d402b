"""From a PyTorch source to a ModelSpec."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from npylstm import FormatError, ModelSpec, NpylstmError, UnsupportedError
from npylstm_converters.files import sha256_of
from npylstm_converters.registry import Importer
from npylstm_converters.torch.files import Kind, sniff, sniff_head

__all__ = ["IMPORTER", "from_torch"]


def from_torch(
    source: Any,
    example: Any = None,
    *,
    layers: str | None = None,
    batch_first: bool | None = None,
    key: str | None = None,
) -> ModelSpec:
    """Convert a PyTorch module, program or weight file.

    Parameters
    ----------
    source
        A ``torch.nn.Module`` that ``torch.export`` can trace; an ``ExportedProgram``; or the path
        of a saved program (``.pt2``), of TorchScript, or of a state_dict (``.pt``, ``.pth``,
        ``.safetensors``), told apart by content. Only programs and modules need torch.
    example
        For a module and for TorchScript: example inputs, a tensor or a tuple of all of forward's
        arguments, or a dictionary of them by name. Free sizes stay free.
    layers
        For a state_dict: how its modules are joined, ``"rnn -> last -> output_layer"``.
    batch_first
        For a state_dict with recurrent modules: whether inputs are (batch, steps, features).
    key
        For a file that holds more: where in it the state_dict is, ``"model_state"``.

    Returns
    -------
    ModelSpec
        Without recorded cases; :func:`npylstm_converters.record` adds them.

    Raises
    ------
    UnsupportedError
        Listing everything that stands in the way, or that a state_dict does not say.
    FormatError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        kind = sniff(source)
        if kind in (Kind.PROGRAM, Kind.TORCHSCRIPT):
            spec = _from_saved_program(source, kind, example)
        else:
            from npylstm_converters.torch.weights import from_state_dict

            spec = from_state_dict(source, layers, batch_first, key)
        provenance = {**spec.provenance, "source_sha256": sha256_of(source)}
        return replace(spec, provenance=provenance)
    if any(option is not None for option in (layers, batch_first, key)):
        raise NpylstmError("layers, batch_first and key go with a state_dict file")
    if is_program(source):
        return _from_program(source, "an exported program")
    if not is_module(source):
        raise FormatError(
            f"expected a path, a torch.nn.Module or an ExportedProgram, got {type(source).__name__}"
        )
    if example is None:
        raise NpylstmError("a module needs example inputs: from_torch(module, example)")
    from npylstm_converters.torch.program import spec_of_program
    from npylstm_converters.torch.tracing import export_module

    program = export_module(source, *arguments(example))
    return spec_of_program(program, "a module, traced by torch.export", type(source).__name__)


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an example; NumPy arrays become tensors."""
    import torch
    from torch.utils import _pytree as pytree

    example = pytree.tree_map(
        lambda v: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v, example
    )
    if isinstance(example, Mapping):
        return (), dict(example)
    return tuple(example) if isinstance(example, (tuple, list)) else (example,), {}


def is_module(source: object) -> bool:
    """Whether an object is a module; without torch in memory it cannot be one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def is_program(source: object) -> bool:
    """Whether an object is an exported program."""
    return type(source).__name__ == "ExportedProgram" and hasattr(source, "graph_signature")


def load_program(path: str | os.PathLike[str], kind: Kind, example: Any) -> Any:
    """Load a saved program by torch itself.

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
    from npylstm_converters.torch.tracing import export_module, quiet

    if kind is Kind.TORCHSCRIPT and example is None:
        raise NpylstmError(f"{label}: is TorchScript, which needs example inputs to be traced")
    with quiet():
        try:
            if kind is Kind.PROGRAM:
                return torch.export.load(label)
            scripted = torch.jit.load(label, map_location="cpu").eval()
            from torch._export.converter import TS2EPConverter

            args, kwargs = arguments(example)
            program = TS2EPConverter(scripted, args, kwargs).convert()
        except Exception as error:  # torch raises what it likes
            text = " ".join(str(error).split())[:300]
            raise NpylstmError(f"{label}: torch cannot load it: {text}") from None
        return export_module(unguarded(program), args, kwargs)


def unguarded(program: Any) -> Any:
    """The module of a program, without the checks that its inputs are as large as the example."""
    try:
        return program.module(check_guards=False)
    except TypeError:  # older ones had none
        return program.module()


def _from_saved_program(path: str | os.PathLike[str], kind: Kind, example: Any) -> ModelSpec:
    return _from_program(load_program(path, kind, example), kind.value)


def _from_program(program: Any, source: str) -> ModelSpec:
    from npylstm_converters.torch.program import spec_of_program
    from npylstm_converters.torch.tracing import export_module, quiet

    try:
        return spec_of_program(program, source)
    except UnsupportedError:
        # A program with every size pinned: what it does not use of them can be freed.
        if program.example_inputs is None:
            raise
        args, kwargs = program.example_inputs
        with quiet():
            module = unguarded(program)
        try:
            freed = export_module(module, args, kwargs)
        except UnsupportedError:
            freed = None
        if freed is None:
            raise
        return spec_of_program(freed, source)


class _TorchImporter(Importer):
    name = "torch"
    options = ("example", "layers", "batch_first", "key")

    def accepts(self, source: Any, head: bytes) -> bool:
        if head:
            return sniff_head(source, head)
        return is_module(source) or is_program(source)

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_torch(source, **options)

    def can_describe(self, source: Any, **options: Any) -> bool:
        weights_only = (Kind.ZIP, Kind.LEGACY, Kind.SAFETENSORS)
        return "layers" not in options and sniff(source) in weights_only

    def describe(self, source: Any, **options: Any) -> dict[str, Any]:
        from npylstm_converters.torch.weights import describe

        return describe(source, options.get("key"))

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> Any:
        from npylstm_converters.torch.runner import TorchRunner

        return TorchRunner(source, spec, **options)


IMPORTER = _TorchImporter()
