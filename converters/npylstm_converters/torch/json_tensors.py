"""A state_dict as JSON: names of tensors and nested lists, nothing else."""

from __future__ import annotations

import os
import re

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm_converters.toolkit.json_files import (
    listed_shape,
    read_numbers,
    read_object,
    top_keys,
)

__all__ = ["is_json_state_dict", "read_json_tensors"]

# The last part of a tensor's name: ``weight``, ``bias_hh_l0_reverse``, ``running_var``.
_TENSOR = re.compile(
    r"(?:.*\.)?(?:(?:weight|bias)(?:_[a-z]+)?(?:_l\d+)?(?:_reverse)?|running_mean|running_var"
    r"|num_batches_tracked)"
)


def is_json_state_dict(path: str | os.PathLike[str]) -> bool:
    """Return whether a JSON file has the names of tensors at its top, and no others."""
    keys = top_keys(path)
    return bool(keys) and all(_TENSOR.fullmatch(key) for key in keys)


def read_json_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the tensors of a JSON file by name, in float32.

    Raises
    ------
    FormatError
        If the file is damaged, or a value is not nested lists of finite numbers.
    OSError
        If it cannot be opened.
    """
    document = read_object(path)
    odd = next((name for name in document if not _TENSOR.fullmatch(name)), None)
    if odd is not None or not document:
        raise FormatError(f"{os.fspath(path)}: expected names of tensors, got {odd!r:.80}")
    return {
        name: read_numbers(name, value, listed_shape(name, value))
        for name, value in document.items()
    }
