"""The arguments of an operation on tensors, none of which may be passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm_converters.errors import Refusal

__all__ = ["Arguments", "Operand", "Plan"]


@dataclass(frozen=True)
class Operand:
    """A tensor that goes in: its place in what the call reads, and its shape."""

    place: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """What computes an operation: layers one after the other; the first reads these operands.

    ``before`` holds layers for single operands, by their place.
    """

    layers: Sequence[Operation]
    reads: Sequence[int]
    before: Mapping[int, Operation] = field(default_factory=dict)


class Arguments:
    """The arguments of an operation; tensors among them are :class:`Operand`.

    Every argument that is never looked up is refused by :meth:`finish`.

    Parameters
    ----------
    positional, named
        Arguments of the call.
    settings
        Arguments of the operation itself, where they are apart from the call's: the config of an
        operation of Keras 3, the attributes of a TensorFlow node. None for a function of
        TensorFlow, which takes all of them in its call.
    """

    def __init__(
        self,
        positional: Sequence[Any],
        named: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.positional = list(positional)
        self._named = dict(named)
        self._settings = self._named if settings is None else dict(settings)
        self._apart = settings is not None
        self._positions: set[int] = set()
        self._names: set[str] = set()
        self._setting_names = self._names if settings is None else set()

    def get(self, position: int, *names: str, default: Any = None) -> Any:
        """Look up an argument of the call, by position or by one of its names."""
        found = [self._named[name] for name in names if name in self._named]
        self._names.update(names)
        if position < len(self.positional):
            self._positions.add(position)
            found.append(self.positional[position])
        if len(found) > 1:
            raise Refusal(f"argument {position} is given twice: {' and '.join(map(repr, found))}")
        return found[0] if found else default

    def option(self, *names: str, default: Any = None) -> Any:
        """Look up a setting that is only given by name."""
        found = [self._settings[name] for name in names if name in self._settings]
        self._setting_names.update(names)
        if len(found) > 1:
            raise Refusal(f"{names[0]} is given twice: {' and '.join(map(repr, found))}")
        return found[0] if found else default

    def setting(self, position: int, *names: str, default: Any = None) -> Any:
        """Look up a setting, which a function of TensorFlow may take by position."""
        if self._apart:
            return self.option(*names, default=default)
        return self.get(position, *names, default=default)

    def off(self, *names: str) -> None:
        """Look up settings that must be left at None or False."""
        for name in names:
            value = self.option(name)
            if value not in (None, False):
                raise Refusal(f"{name}={value!r:.60} is not supported")

    def tensor(self, position: int = 0, *names: str) -> Operand:
        """Look up an argument that must be a tensor."""
        value = self.get(position, *names)
        if not isinstance(value, Operand):
            raise Refusal(f"expected a tensor, got {value!r:.60}")
        return value

    def tensors(self, *names: str) -> list[Operand]:
        """Look up the first argument, a list of tensors, which Keras 2 writes without its list."""
        if self.positional and not isinstance(self.positional[0], list):
            count = sum(isinstance(value, Operand) for value in self.positional)
            self.positional[:count] = [self.positional[:count]]
        value = self.get(0, *names)
        if not isinstance(value, list) or not value:
            raise Refusal("expected a list of tensors")
        if not all(isinstance(entry, Operand) for entry in value):
            raise Refusal("expected a list of tensors")
        return value

    def axis(self, x: Operand, default: Any = None, extra: int = 0) -> int:
        """Look up one axis, counted from the front."""
        axis = self.setting(1, "axis", default=default)
        if isinstance(axis, list) and len(axis) == 1:
            axis = axis[0]
        if type(axis) is not int:
            raise Refusal(f"axis: expected an integer, got {axis!r:.60}")
        return axis + len(x.shape) + extra if axis < 0 else axis

    def finish(self) -> None:
        """Refuse every argument that was never looked up."""
        left = [f"{v!r:.60}" for k, v in enumerate(self.positional) if k not in self._positions]
        left += [f"{k}={v!r:.60}" for k, v in self._named.items() if k not in self._names]
        if self._apart:
            known = self._setting_names
            left += [f"{k}={v!r:.60}" for k, v in self._settings.items() if k not in known]
        if left:
            raise Refusal(f"arguments that are not supported: {', '.join(left)}")
