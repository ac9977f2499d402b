"""Hooks that set states and lengths of PyTorch modules and record their outputs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError

__all__ = ["Hooks"]

Array = npt.NDArray[Any]
States = Mapping[str, Mapping[str, Array]]


class Hooks:
    """Hooks on the modules of a model during one run.

    A layer's name in the spec is the path of its module: ``encoder.fc``. A recurrent module of one
    layer is ``rnn``, of several ``rnn_l0``, ``rnn_l1``; the second call is ``rnn#2``.

    Parameters
    ----------
    modules
        Modules by path.
    spec
        The converted model.

    Attributes
    ----------
    sets_state, sets_lengths
        Whether there is a module for every layer of the spec with a state, and for every recurrent
        layer.
    """

    def __init__(self, modules: Mapping[str, Any], spec: ModelSpec) -> None:
        self._modules, self._spec = dict(modules), spec
        recurrent = {e.layer for e in spec.edges if spec[e.layer].layer.uses_mask}
        if _is_recurrent(self._modules.get("")):  # the whole model, whose path is empty
            own = min(recurrent, default="").rpartition("_l0")
            self._modules = {own[0] or own[2]: self._modules[""]}
        known = {
            name
            for path, module in self._modules.items()
            if _is_recurrent(module)
            for name in _layers(path, module)
        }
        self.sets_state = known >= {name.partition("#")[0] for name in spec.state_shapes()}
        self.sets_lengths = known >= recurrent

    @contextlib.contextmanager
    def attached(
        self, state: States, lengths: Array | None = None, seen: dict[str, Any] | None = None
    ) -> Iterator[None]:
        """Set states and lengths, and record the modules' outputs by the spec's names.

        Raises
        ------
        NpylstmError
            If no module used a state.
        """
        counts: Counter[str] = Counter()
        left = set(state)
        handles = []
        for path, module in self._modules.items():
            if _is_recurrent(module):
                before = self._giver(path, counts, state, lengths, left)
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                if lengths is not None:
                    handles.append(module.register_forward_hook(_unpack, with_kwargs=True))
            if seen is not None:
                hook = self._observer(path, counts, seen)
                handles.append(module.register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if left:
            raise NpylstmError(f"no module takes the state of {', '.join(sorted(left))}")

    def _giver(
        self, path: str, counts: Counter[str], state: States, lengths: Array | None, left: set[str]
    ) -> Any:
        """Return a hook that adds state and lengths to the arguments of a recurrent module."""
        import torch

        def give(module: Any, args: Any, kwargs: Any) -> Any:
            counts[path] += 1
            given = {**dict(zip(("input", "hx"), args, strict=False)), **kwargs}
            names = [_call(name, counts[path]) for name in _layers(path, module)]
            if names and all(name in state for name in names):
                left.difference_update(names)
                given["hx"] = _stacked(module, [state[name] for name in names])
            if lengths is not None:
                given["input"] = torch.nn.utils.rnn.pack_padded_sequence(
                    given["input"], torch.from_numpy(np.asarray(lengths)),
                    batch_first=module.batch_first, enforce_sorted=False,
                )  # fmt: skip
            return (), given

        return give

    def _observer(self, path: str, counts: Counter[str], seen: dict[str, Any]) -> Any:
        """Return a hook that records a module's output if the spec has a tensor of its name."""

        def observe(module: Any, _: Any, y: Any) -> None:
            if _is_recurrent(module):
                y, axis = y[0], 1 if module.batch_first else 0
                name = _layers(path, module)[-1]
            else:
                counts[path] += 1
                name = path
            tensor = _call(name, counts[path])
            shape = self._spec.shapes.get(tensor)
            if shape is None or not hasattr(y, "detach"):
                return
            if _is_recurrent(module) and len(shape) < y.ndim:  # the spec keeps only the last step
                y = y.select(axis, -1)
            seen[tensor] = y.detach().numpy()

        return observe


def _is_recurrent(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.RNNBase)


def _layers(path: str, module: Any) -> list[str]:
    """Return the spec's names of the layers of a recurrent module."""
    count = module.num_layers
    return [path] if count == 1 else [f"{path}_l{k}" for k in range(count)]


def _call(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"


def _stacked(module: Any, layers: list[Mapping[str, Array]]) -> Any:
    """Return the states of all layers and directions, stacked as PyTorch's ``hx``."""
    import torch

    ways = ("forward/", "backward/") if module.bidirectional else ("",)
    letters = "hc" if module.mode == "LSTM" else "h"
    stacks = [
        torch.stack([torch.from_numpy(np.array(entries[f"{way}{letter}"])) for entries in layers
                     for way in ways])
        for letter in letters
    ]  # fmt: skip
    return tuple(stacks) if len(stacks) > 1 else stacks[0]


def _unpack(module: Any, _: Any, kwargs: Any, y: Any) -> Any:
    """Return a recurrent module's packed output as a padded tensor, with the state."""
    import torch

    sequence, state = y
    steps = len(kwargs["input"].batch_sizes)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(
        sequence, batch_first=module.batch_first, total_length=steps
    )
    return padded, state
