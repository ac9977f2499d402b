"""Detects the kind of PyTorch's files by content, and reads their tensors without PyTorch.

========================  ==================================================================
form                      detected by
========================  ==================================================================
zip of tensors            a zip with ``NAME/data.pkl`` (torch >= 1.6)
legacy pickle             a magic number, pickled (torch before 1.6)
pickle                    any other pickle of protocol 2 or later, as pickle.dump writes it
safetensors               the length of a header, and the header, which is JSON
JSON of tensors           JSON whose keys are names of tensors, and nothing else
TorchScript               a zip with ``NAME/code/``
exported program          a zip with ``NAME/models/`` or ``serialized_exported_program.json``
========================  ==================================================================
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm_converters.files import zip_names
from npylstm_converters.toolkit.json_files import is_json
from npylstm_converters.torch.choosing import choose
from npylstm_converters.torch.containers import Contents, read_legacy, read_pickle, read_zip
from npylstm_converters.torch.json_tensors import is_json_state_dict, read_json_tensors
from npylstm_converters.torch.legacy import LEGACY_HEAD
from npylstm_converters.torch.mapping import damage_named
from npylstm_converters.torch.packed_parameters import without_scales
from npylstm_converters.torch.pickle_values import QuantizedTensor, Tensor
from npylstm_converters.torch.pickled_modules import PickledModule
from npylstm_converters.torch.quantized import modules_of, notes_on
from npylstm_converters.torch.reparametrized import without_reparametrizations
from npylstm_converters.torch.safetensors_reader import read_safetensors
from npylstm_converters.torch.storages import read_tensor, refuse_repetition
from npylstm_converters.torch.wrappers import without_wrappers

__all__ = ["Checkpoint", "Kind", "read_checkpoint", "sniff", "sniff_head"]


class Kind(enum.Enum):
    """The kind of a file; the value is its description."""

    ZIP = "PyTorch zip"
    LEGACY = "PyTorch legacy pickle"
    SAFETENSORS = "safetensors"
    JSON = "JSON state_dict"
    PICKLE = "a pickle"
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
    if LEGACY_HEAD in head:
        return Kind.LEGACY
    if is_json(head) and is_json_state_dict(path):
        return Kind.JSON
    if head[8:9] == b"{" and not is_json(head):
        return Kind.SAFETENSORS
    if head.startswith(b"\x80"):
        return Kind.PICKLE
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
    modules
        For a pickled module: all modules by path.
    sources
        Source texts of classes by name, which torch before 1.6 wrote.
    dequantized
        Names of tensors that the file holds as 8-bit codes.
    """

    tensors: dict[str, Array]
    format: str
    notes: tuple[str, ...] = ()
    modules: Mapping[str, PickledModule] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    dequantized: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str], key: str | None = None) -> Checkpoint:
    """Return the weights in a file without PyTorch; nothing in it is executed.

    Weights are a state_dict, also in a checkpoint, or the tensors of a pickled module. Foreign
    objects beside them are ignored.

    Parameters
    ----------
    path
        A ``.pt``, ``.pth``, ``.ckpt``, ``.pkl``, ``.safetensors`` or JSON of tensors, detected by
        content.
    key
        Dotted path of the state_dict in the file; None if there is only one.

    Raises
    ------
    UnsupportedError
        If the weights, or a file without any, hold foreign objects; every one is listed.
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
            names = without_wrappers(list(arrays))
            arrays = {names[name]: array for name, array in arrays.items()}
            arrays, folded = without_reparametrizations(arrays)
            return Checkpoint(arrays, kind.value, tuple(folded))
        contents = _READERS[kind](path)
        choice = choose(contents, key)
        tensors = [t for t in choice.tensors.values() if isinstance(t, Tensor)]
        refuse_repetition(tensors, contents.storages)
        arrays = {
            name: read_tensor(name, tensor, contents.storages)
            if isinstance(tensor, Tensor)
            else _native(tensor.array)
            for name, tensor in choice.tensors.items()
        }
        codes = [k for k, t in choice.tensors.items() if isinstance(t, QuantizedTensor)]
        arrays = without_scales(arrays, [*codes, *choice.halves])
        names = without_wrappers([*arrays, *choice.modules])
        arrays = {names[name]: array for name, array in arrays.items()}
        modules = {
            names[path]: replace(m, children=tuple(names[c] for c in m.children))
            for path, m in choice.modules.items()
        }
        arrays, folded = without_reparametrizations(arrays)
    codes = [names[name] for name in codes]
    halves = [names[name] for name in choice.tensors if name in choice.halves]
    notes = (*choice.notes, *notes_on(modules_of(codes), modules_of(halves)), *folded)
    form = kind.value if not modules else f"a pickled module ({kind.value})"
    return Checkpoint(arrays, form, notes, modules, dict(contents.sources), tuple(codes))


def _native(array: Array) -> Array:
    """Return an array of a pickle in this machine's byte order, as :func:`read_tensor` does."""
    native: Array = np.array(array, array.dtype.newbyteorder("="))
    return native.astype(np.float32) if native.dtype == np.float16 else native


_READERS: Mapping[Kind, Callable[[Any], Contents]] = {
    Kind.ZIP: read_zip,
    Kind.LEGACY: read_legacy,
    Kind.SAFETENSORS: read_safetensors,
    Kind.PICKLE: read_pickle,
}
