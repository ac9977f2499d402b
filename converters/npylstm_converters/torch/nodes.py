"""What the nodes of a traced program say: shapes, kinds of values, and where they are written."""

from __future__ import annotations

import linecache
import re
from typing import Any

from npylstm_converters.torch.builder import TracedShape

__all__ = ["is_integer", "is_number", "module_of", "operation_of", "place_of", "shape_of", "traced"]


def traced(node: Any) -> TracedShape:
    """Return the shape of a node's tensor in torch's trace."""
    return shape_of(node.meta["val"])


def shape_of(value: Any) -> TracedShape:
    """Return the shape of a traced tensor: integers and symbolic expressions."""
    sizes = (d if isinstance(d, int) else d.node.expr for d in value.shape)
    return tuple(int(d) if getattr(d, "is_Integer", False) else d for d in sizes)


def is_integer(tensor: Any) -> bool:
    """Whether a tensor holds integers or truth values."""
    return not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


def is_number(node: Any) -> bool:
    """Whether a node returns a size or another plain number."""
    import torch

    plain = (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)
    return isinstance(node.meta.get("val"), plain)


def operation_of(node: Any) -> str:
    """Return the name of an operation, for messages."""
    return re.sub(r"^aten\.|\.default$", "", str(node.target))


def module_of(node: Any) -> tuple[str, str]:
    """Return path and class of the innermost module that contains an operation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, cls = stack[-1]
    cls_name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__name__}"
    return str(path), cls_name


_INSIDE = re.compile(r"[/\\](torch|npylstm_converters)[/\\]")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n?(?P<code>[^\n]*)')


def place_of(node: Any) -> str:
    """Return the module's path and the user's source line."""
    path, cls = module_of(node)
    module = f"{path} ({cls.rpartition('.')[2]})" if path else "forward"
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    own = [
        f for f in frames if not re.search(r"[/\\](torch|npylstm_converters)[/\\]", f["file"])
    ] or frames
    if not own:
        return module
    frame = own[-1]
    code = frame["code"].strip() or linecache.getline(frame["file"], int(frame["line"])).strip()
    file = re.split(r"[/\\]", frame["file"])[-1]
    return f"{module}, {file}:{frame['line']}: {code}"
