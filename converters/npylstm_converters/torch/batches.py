"""The batch of an example: examples of other batches, and modules that remember one.

torch.export keeps the example's batch where forward compares it with an attribute, or where an
attribute holds tensors of this batch. Imports torch when called.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from npylstm import UnsupportedError
from npylstm_converters.torch.running import copied, inference

__all__ = [
    "FixedBatchError",
    "Memory",
    "memories",
    "other_batches",
    "possible_batches",
    "rebatched",
    "repeated",
]

_MOST_TRIES = 64


class FixedBatchError(UnsupportedError):
    """No size of an input is the batch's in a trace."""


def repeated(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], size: int
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the example with every sample twice, if its batch is of this size; else None.

    A trial finds the axes of the batch: inputs repeated along them must give repeated outputs.
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves, structure = pytree.tree_flatten((args, kwargs))
    axes = [
        [a for a, n in enumerate(v.shape) if n == size] if isinstance(v, torch.Tensor) else []
        for v in leaves
    ]
    if not any(axes):
        return None
    before = _outputs(module, args, kwargs)
    # First the same axis for all inputs, then all combinations.
    same = [tuple(a if a in own else None for own in axes) for a in range(max(map(len, axes)) + 2)]
    every = itertools.product(*([*own, None] if own else [None] for own in axes))
    tried: set[tuple[int | None, ...]] = {(None,) * len(leaves)}
    for choice in itertools.islice(itertools.chain(same, every), _MOST_TRIES):
        if choice in tried:
            continue
        tried.add(choice)
        wide = [
            v if a is None else v.repeat_interleave(2, dim=a)
            for v, a in zip(leaves, choice, strict=True)
        ]
        made: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(wide, structure)
        try:
            after = _outputs(module, *made)
        except Exception:  # these axes are not the batch
            continue
        if all(_is_repeated(a, b) for a, b in zip(before, after, strict=True)):
            return made
    return None


def _outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Run a module on copies of its inputs, from the state that it has; return all tensors."""
    from torch.utils import _pytree as pytree

    given, named = copied((args, kwargs))
    with inference(module):
        made: list[Any] = pytree.tree_leaves(module(*given, **named))
    return made


def _is_repeated(before: Any, after: Any) -> bool:
    """Whether ``after`` is ``before`` repeated twice along one axis."""
    import torch

    if not isinstance(before, torch.Tensor) or before.ndim != after.ndim:
        return False
    grown = [a for a in range(before.ndim) if before.shape[a] != after.shape[a]]
    if len(grown) != 1 or after.shape[grown[0]] != 2 * before.shape[grown[0]]:
        return False
    twice = before.repeat_interleave(2, dim=grown[0])
    return bool(torch.allclose(twice, after, rtol=1e-3, atol=1e-5, equal_nan=True))


def other_batches(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield examples with every sample twice, for axes of the first input that may be the batch."""
    import torch

    with torch.no_grad():
        for size in dict.fromkeys(size for _, size in possible_batches(args, kwargs)):
            found = repeated(module, args, kwargs, size)
            if found is not None:
                yield found


def possible_batches(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the axes of the first input that may be the batch, with their sizes."""
    import torch
    from torch.utils import _pytree as pytree

    tensors = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
    return [*enumerate(tensors[0].shape[:2])] if tensors else []


@dataclass(frozen=True)
class Memory:
    """An attribute of a module that holds the batch of an example.

    Attributes
    ----------
    owner, name
        The module and its attribute.
    text
        For messages: ``encoder.hidden (1, 2, 6)``.
    value
        The attribute's value for a batch of any size.
    """

    owner: Any
    name: str
    text: str
    value: Callable[[Any], Any] | None


def memories(module: Any, size: int) -> list[Memory]:
    """Return the attributes that hold this batch: numbers called so, and tensors with an axis."""
    found = []
    for path, owner in module.named_modules():
        entries = {k: v for k, v in vars(owner).items() if not k.startswith("_")}
        for name, value in {**entries, **owner._buffers}.items():
            label = f"{path}.{name}" if path else name
            if type(value) is int and value == size and _is_batch(name):
                found.append(Memory(owner, name, f"{label} = {value}", lambda batch: batch))
            elif tensors := _batched(value, size):
                text = f"{label} {tuple(tensors[0][0].shape)}"
                found.append(Memory(owner, name, text, _of_any_batch(value, size)))
    return found


def _is_batch(name: str) -> bool:
    return name.lower().strip("_") in ("bs", "bsz", "b", "n_batch") or "batch" in name.lower()


def _batched(value: Any, size: int) -> list[tuple[Any, int]]:
    """Return the tensors of an attribute that have one axis of this size, with the axis."""
    import torch

    parts = value if isinstance(value, (tuple, list)) else [value]
    return [
        (v, [*v.shape].index(size))
        for v in parts
        if isinstance(v, torch.Tensor) and not isinstance(v, torch.nn.Parameter)
        and v.ndim > 1 and [*v.shape].count(size) == 1
    ]  # fmt: skip


def _of_any_batch(value: Any, size: int) -> Callable[[Any], Any] | None:
    """Return the attribute's value by batch, if all samples of its tensors are the same."""
    found = {id(v): (v, axis) for v, axis in _batched(value, size)}
    if not all(bool((v == v.narrow(axis, 0, 1)).all()) for v, axis in found.values()):
        return None
    zeros = {key for key, (v, _) in found.items() if not bool(v.any())}

    def sized(v: Any, batch: Any) -> Any:
        import torch

        if id(v) not in found:
            return v
        axis = found[id(v)][1]
        shape = [batch if k == axis else n for k, n in enumerate(v.shape)]
        return torch.zeros(shape, dtype=v.dtype) if id(v) in zeros else (
            v.narrow(axis, 0, 1).expand(shape)
        )  # fmt: skip

    def made(batch: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(sized(v, batch) for v in value)
        return sized(value, batch)

    return made


@contextlib.contextmanager
def rebatched(module: Any, held: Sequence[Memory], axis: int) -> Iterator[None]:
    """Give attributes the batch of each call, that of an axis of the first input."""
    import torch
    from torch.utils import _pytree as pytree

    forward = module.forward
    buffers = {}

    @functools.wraps(forward)
    def with_batch(*args: Any, **kwargs: Any) -> Any:
        tensors = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
        batch = tensors[0].shape[axis]
        for memory in held:
            if memory.value is not None:
                setattr(memory.owner, memory.name, memory.value(batch))
        return forward(*args, **kwargs)

    with inference(module):
        for memory in held:
            if memory.name in memory.owner._buffers:  # as an attribute, which forward may replace
                buffers[memory.owner, memory.name] = memory.owner._buffers.pop(memory.name)
        module.forward = with_batch
        try:
            yield
        finally:
            del module.forward
            for (owner, name), value in buffers.items():
                vars(owner).pop(name, None)
                owner._buffers[name] = value
