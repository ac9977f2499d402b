"""What a module remembers besides its weights, as it was. Imports torch when called.

``forward`` may keep a state in an attribute, in a container or object that an attribute holds, in
a buffer, or in a global variable.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator
from typing import Any

from npylstm_converters.torch.scripted import written_attributes

__all__ = ["Snapshot"]

_MOST_OBJECTS = 5000
_PLAIN = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)


class Snapshot:
    """All attributes of a module and its parts, with the contents of containers and tensors.

    Parameters
    ----------
    module
        A ``torch.nn.Module``. Its weights are not copied.
    """

    def __init__(self, module: Any) -> None:
        import torch

        internal = frozenset(vars(torch.nn.Module()))
        self._owners: list[tuple[str, Any, dict[str, Any]]] = []
        self._held: dict[int, tuple[str, Any, Any]] = {}  # containers: label, object, contents
        self._tensors: dict[int, tuple[str, Any, Any]] = {}
        self._outer: list[tuple[str, dict[str, Any], Any]] = []  # names of the module's file
        self._replaced: list[tuple[str, Any, str, Any, Any]] = []
        self._scripted = list(written_attributes(module))
        for path, owner in module.named_modules():
            if isinstance(owner, torch.jit.ScriptModule):
                continue
            prefix = f"{path}." if path else ""
            entries = {
                k: v for k, v in vars(owner).items()
                if k not in internal and not k.startswith(("_flat_weight", "_all_weights"))
            }  # fmt: skip
            self._owners.append((prefix, owner, entries))
            for name, value in entries.items():
                self._hold(f"{prefix}{name}", value)
            for function in (type(owner).forward, *entries.values()):
                for name, held in _outer_names(function):
                    self._outer.append((name, held, held[name]))
                    self._hold(name, held[name])
            self._replaced += [
                (f"{prefix}{name}", own, name, value, value.detach())
                for own in (owner._buffers, owner._parameters)
                for name, value in own.items()
                if value is not None and not torch.nn.parameter.is_lazy(value)
            ]  # fmt: skip
        for name, buffer in module.named_buffers():
            self._hold(name, buffer)

    def _hold(self, label: str, root: Any) -> None:
        """Copy the contents of a container and of all that it holds."""
        import torch

        waiting = [root]
        while waiting and len(self._held) < _MOST_OBJECTS:
            value = waiting.pop()
            if isinstance(value, torch.Tensor):
                weight = isinstance(value, torch.nn.Parameter)
                if not (weight or value.is_meta or id(value) in self._tensors):
                    self._tensors[id(value)] = label, value, value.detach().clone()
            elif isinstance(value, tuple):
                waiting += value
            elif id(value) not in self._held and (contents := _contents(value)) is not None:
                self._held[id(value)] = label, value, contents
                waiting += contents.values() if isinstance(contents, dict) else contents

    def changed(self) -> list[str]:
        """Return the names of attributes that are no longer what they were."""
        import torch

        found = [
            f"{prefix}{name}" for prefix, owner, entries in self._owners
            for name in _differences(entries, vars(owner), self._names(owner, entries))
        ]  # fmt: skip
        found += [
            label for label, value, was in self._held.values() if _differs(_contents(value), was)
        ]
        found += [
            label for label, value, was in self._tensors.values()
            if value.shape != was.shape or not torch.equal(value, was)
        ]  # fmt: skip
        found += [
            label for label, own, name, tensor, was in self._replaced
            if own.get(name) is not tensor or tensor.data_ptr() != was.data_ptr()
        ]  # fmt: skip
        found += [name for name, held, was in self._outer if held.get(name) is not was]
        for label, owner, name, was in self._scripted:
            now = getattr(owner, name)
            tensors = isinstance(now, torch.Tensor) and isinstance(was, torch.Tensor)
            if not (torch.equal(now, was) if tensors else now == was):
                found.append(label)
        return [*dict.fromkeys(found)]

    def restore(self) -> None:
        """Give all attributes the values that they had."""
        import torch

        for _, owner, entries in self._owners:
            for name in self._names(owner, entries):
                if name not in entries:
                    del vars(owner)[name]
            vars(owner).update(entries)
        for _, value, was in self._held.values():
            if _differs(_contents(value), was):
                _refill(value, was)
        with torch.no_grad():
            for _, value, was in self._tensors.values():
                if value.shape != was.shape:
                    value.data = was
                elif not torch.equal(value, was):
                    value.copy_(was)
        for name, held, was in self._outer:
            held[name] = was
        for _, owner, name, was in self._scripted:
            setattr(owner, name, was)

    def restore_weights(self) -> None:
        """Give weights and buffers the memory that they had before their ``data`` was assigned."""
        for _, own, name, tensor, was in self._replaced:
            own[name] = tensor
            if tensor.data_ptr() != was.data_ptr():
                tensor.data = was

    def _names(self, owner: Any, entries: dict[str, Any]) -> list[str]:
        """Return the names of a module's attributes now, without those of torch."""
        import torch

        internal = frozenset(vars(torch.nn.Module()))
        return [
            k for k in {**entries, **vars(owner)}
            if k not in internal and not k.startswith(("_flat_weight", "_all_weights"))
        ]  # fmt: skip


_MISSING = object()


def _outer_names(function: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the global names that a user's function reads or assigns, with their dictionary."""
    import torch

    code, held = getattr(function, "__code__", None), getattr(function, "__globals__", None)
    if code is None or held is None or str(held.get("__name__")).partition(".")[0] == "torch":
        return
    for name in code.co_names:
        plain = (dict, list, set, deque, torch.Tensor, int, float, tuple, type(None))
        if name in held and isinstance(held[name], plain):
            yield name, held


def _differences(was: dict[str, Any], now: dict[str, Any], names: list[str]) -> Iterator[str]:
    for name in names:
        before, after = was.get(name, _MISSING), now.get(name, _MISSING)
        if before is not after:
            yield name


def _contents(value: Any) -> Any:
    """Return a copy of what a container or an object holds, or None if it is neither."""
    import torch

    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (list, set, deque)):
        return list(value)
    if isinstance(value, (*_PLAIN, torch.nn.Module)) or not hasattr(value, "__dict__"):
        return None
    return dict(vars(value))


def _differs(now: Any, was: Any) -> bool:
    if isinstance(was, dict):
        return now.keys() != was.keys() or any(now[k] is not v for k, v in was.items())
    return len(now) != len(was) or any(a is not b for a, b in zip(now, was, strict=True))


def _refill(value: Any, contents: Any) -> None:
    if isinstance(value, (dict, set)):
        value.clear()
        value.update(contents)
    elif isinstance(value, (list, deque)):
        value.clear()
        value.extend(contents)
    else:
        vars(value).clear()
        vars(value).update(contents)
