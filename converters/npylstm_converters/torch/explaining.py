"""Say why torch cannot trace a module, with the user's line and what to do instead."""

from __future__ import annotations

import linecache
import re
import traceback
from typing import Any

from npylstm_converters.toolkit.runners import one_line

__all__ = ["assigns_weights", "explain", "returns_unknown_type"]

# What torch's message contains, the cause, and the next step.
_CAUSES = (
    (
        r"data-dependent|_local_scalar_dense|\.item\(\)|u\d+ .*guard|GuardOnDataDependent",
        "forward takes a number out of a tensor (if, while, range, int(), .item(), .tolist()), and "
        "the trace of one example cannot follow it: compute with tensors (torch.where, masks, "
        "gather), or take a size (x.size(1))",
    ),
    (
        r"numpy\(\) is not supported|\.numpy\(\)|from_numpy|__array__",
        "forward leaves torch for NumPy: write that part with torch's operations",
    ),
    (
        r"dynamic shape operator|nonzero|masked_select|unique",
        "the number of entries depends on their values: use a mask of fixed size",
    ),
    (
        r"autograd|does not require grad|backward",
        "forward computes gradients, which inference does not have",
    ),
)  # fmt: skip

_INSIDE = re.compile(r"[/\\](torch|npylstm_converters|npylstm|importlib)[/\\]|contextlib|functools")


def explain(error: Exception, module: Any) -> str:
    """Return the reason for an error of torch.export, in the user's terms."""
    text = f"{type(error).__name__}: {one_line(error, 400)}"
    place = _place(error)
    name = type(module).__name__
    for pattern, cause in _CAUSES:
        if re.search(pattern, f"{type(error).__name__}: {error}"):
            return f"{name}: {cause}{place} (torch.export cannot trace it: {text[:160]})"
    return f"{name}: torch.export cannot trace it: {text}{place}"


def _place(error: BaseException) -> str:
    """Return the last line of the user's own code that was running."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if not _INSIDE.search(frame.filename) and not frame.filename.startswith("<")
    ]  # fmt: skip
    if not frames:
        return ""
    frame = frames[-1]
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    file = re.split(r"[/\\]", frame.filename)[-1]
    return f", in {file}:{frame.lineno}: {line}"


def assigns_weights(error: BaseException) -> bool:
    """Whether forward has replaced a weight, as layers that drop weights do."""
    text = str(error)
    return "fake tensor in the exported program" in text or " as parameter " in text


def returns_unknown_type(error: BaseException) -> bool:
    """Whether forward returns a class whose fields torch does not know, such as a dataclass."""
    return "in output, which is not a known type" in str(error)
