"""Detects the kind of PyTorch's files by content, and reads their tensors without PyTorch.

========================  ==================================================================
form                      detected by
========================  ==================================================================
zip of tensors            a zip with ``NAME/data.pkl`` (torch >= 1.6)
legacy pickle             a magic number, pickled (torch before 1.6)
safetensors               the length of a header, and the header, which is JSON
JSON of tensors           JSON whose keys are names of tensors, and nothing else
TorchScript               a zip with ``NAME/code/``
exported program          a zip with ``NAME/models/`` or ``serialized_exported_program.json``
========================  ==================================================================
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm_converters.files import zip_names
from npylstm_converters.toolkit.json_files import is_json
from npylstm_converters.torch.containers import read_legacy, read_safetensors, read_zip, walk
from npylstm_converters.torch.json_tensors import is_json_state_dict, read_json_tensors
from npylstm_converters.torch.mapping import damage_named
from npylstm_converters.torch.pickle_values import Tensor
from npylstm_converters.torch.storages import Storages, read_tensor, refuse_repetition
from npylstm_converters.torch.wrappers import without_prefix, without_weight_norm

__all__ = ["Checkpoint", "Kind", "read_checkpoint", "sniff", "sniff_head"]

_LEGACY_HEAD = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_LISTED = 20


class Kind(enum.Enum):
    """The kind of a file; the value is its description."""

    ZIP = "PyTorch zip"
    LEGACY = "PyTorch legacy pickle"
    SAFETENSORS = "safetensors"
    JSON = "JSON state_dict"
    TORCHSCRIPT = "TorchScript"
    PROGRAM = "an exported program"


def sniff_head(source: str | os.PathLike[str], head: bytes) -> bool:
    """Whether a file may be PyTorch's, by its first bytes and, for a zip, its names."""
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(zip_names(source)) is not None
    if is_json(head):
        return is_json_state_dict(source)
    return head.startswith(b"\x80") or head[8:9] == b"{"


def _kind_of_zip(names: list[str]) -> Kind | None:
    tails = {name.partition("/")[2] or name for name in names}
    if any(t.startswith("models/") and t.endswith(".json") for t in tails) or (
        "serialized_exported_program.json" in tails
    ):
        return Kind.PROGRAM
    if any(t == "data.pkl" or t.startswith("data/") for t in tails):
        return Kind.TORCHSCRIPT if any(t.startswith("code/") for t in tails) else Kind.ZIP
    return None


def sniff(path: str | os.PathLike[str]) -> Kind:
    """Return the kind of a file.

    Raises
    ------
    FormatError
        If it is not a file of PyTorch.
    OSError
        If it cannot be read.
    """
    label = os.fspath(path)
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        raise FormatError(f"{label}: expected a file")
    with open(path, "rb") as stream:
        head = stream.read(64)
    if not head:
        raise FormatError(f"{label}: is empty")
    if head.startswith(b"PK\x03\x04"):
        kind = _kind_of_zip(zip_names(path))
        if kind is None:
            raise FormatError(f"{label}: a zip without data.pkl, or damaged")
        return kind
    if _LEGACY_HEAD in head:
        return Kind.LEGACY
    if is_json(head) and is_json_state_dict(path):
        return Kind.JSON
    if head[8:9] == b"{" and not is_json(head):
        return Kind.SAFETENSORS
    if head.startswith(b"\x80"):
        raise FormatError(
            f"{label}: a pickle that torch.save did not write; save it by "
            "torch.save(module.state_dict(), path)"
        )
    raise FormatError(f"{label}: expected a file of torch.save or safetensors, or it is damaged")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a weight file.

    Attributes
    ----------
    tensors
        Arrays by name, in the order of the file. Half precision is widened to float32.
    format
        The form of the file.
    notes
        Decisions of the reader.
    """

    tensors: dict[str, Array]
    format: str
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str], key: str | None = None) -> Checkpoint:
    """Return the tensors of a weight file without PyTorch; nothing in it is executed.

    Parameters
    ----------
    path
        A ``.pt``, ``.pth``, ``.safetensors`` or JSON of tensors, detected by content.
    key
        Dotted path of the state_dict in the file; None if there is only one.

    Raises
    ------
    UnsupportedError
        If the file names code; every name is listed.
    FormatError
        If it is damaged, or holds no state_dict or several.
    OSError
        If it cannot be opened.
    """
    label = os.fspath(path)
    kind = sniff(path)
    if kind in (Kind.TORCHSCRIPT, Kind.PROGRAM):
        raise FormatError(f"{label}: is {kind.value}, not a state_dict")
    if kind is Kind.JSON and key is not None:
        raise FormatError(f"{label}: is a state_dict itself, and takes no key")
    with damage_named(path):
        if kind is Kind.JSON:
            arrays = read_json_tensors(path)
            return Checkpoint(without_weight_norm(without_prefix(arrays)), kind.value)
        value, storages = _READERS[kind](path)
        tensors, notes = _choose(value, key)
        refuse_repetition(tensors, storages)
        arrays = {name: read_tensor(name, tensor, storages) for name, tensor in tensors.items()}
        arrays = without_weight_norm(without_prefix(arrays))
    return Checkpoint(arrays, kind.value, tuple(notes))


_READERS: Mapping[Kind, Callable[[Any], tuple[Any, Storages]]] = {
    Kind.ZIP: read_zip,
    Kind.LEGACY: read_legacy,
    Kind.SAFETENSORS: read_safetensors,
}


def _is_state_dict(value: Any) -> bool:
    """Whether a value maps names to tensors only."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) for k in value)
        and all(isinstance(v, Tensor) for v in value.values())
    )


def _choose(value: Any, key: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state_dict in a file's object, and notes."""
    found: dict[str, dict[str, Tensor]] = {}
    judged: dict[int, bool] = {}  # one dictionary may occur at many paths
    for path, item in walk(value, optimizers=False):
        if id(item) not in judged:
            judged[id(item)] = _is_state_dict(item)
        if judged[id(item)] and not re.search(r"(^|\.)state\.\d+$", path):
            if path in found and found[path] is not item:
                raise FormatError(f"holds two state_dicts under {path!r}; save one by itself")
            found[path] = item
    if key is not None:
        if key not in found:
            known = ", ".join(sorted(map(repr, found))[:_MOST_LISTED]) or "none"
            raise FormatError(f"key {key!r:.80}: no state_dict there; there are: {known}")
        return found[key], [f"key {key!r}, as told"]
    if not found:
        raise FormatError(
            f"expected a state_dict, names of tensors, got a {type(value).__name__}; save it by "
            "torch.save(module.state_dict(), path)"
        )
    if len(found) > 1 and "" not in found:
        names = ", ".join(sorted(map(repr, found))[:_MOST_LISTED])
        raise FormatError(f"holds {len(found)} state_dicts, choose one by key (--key): {names}")
    path = "" if "" in found else next(iter(found))
    notes = [f"key {path!r}, the only state_dict in the file"] if path else []
    return found[path], notes
