"""Which axis of each input is the batch: the file does not say, the graph has to allow it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npylstm.ops.shapes import BATCH, STEPS, Dim
from npylstm.spec import TensorSpec

__all__ = ["GraphInput", "batch_choices", "file_names", "tensor_specs"]

_BATCH_NAME = re.compile(r"batch|^n$|^b$|^bs$|samples?$|^unk__0$", re.IGNORECASE)
_MOST_CHOICES = 32
_PASSING = ("Identity", "Cast", "Dropout")


@dataclass(frozen=True)
class GraphInput:
    """An input of the graph: its type, and sizes as the file declares them."""

    name: str
    kind: str
    dtype: np.dtype[Any]
    dims: tuple[int | str | None, ...]


Choice = Mapping[str, int | None]


def batch_choices(inputs: Sequence[GraphInput], nodes: Sequence[Any]) -> Iterator[Choice]:
    """Yield the axis of the batch of every input, the most plausible choice first."""
    known = dict(_axes_of_recurrent(inputs, nodes))
    names = {d for i in inputs for d in i.dims if isinstance(d, str) and _BATCH_NAME.search(d)}
    options = [_options(tensor, names, known.get(tensor.name)) for tensor in inputs]
    ranked = itertools.islice(itertools.product(*(range(len(o)) for o in options)), 4096)
    for choice in sorted(ranked, key=lambda c: (sum(c), c))[:_MOST_CHOICES]:
        pairs = zip(inputs, options, choice, strict=True)
        axes = {tensor.name: own[k] for tensor, own, k in pairs}
        if any(axis is not None for axis in axes.values()):
            yield axes
    yield {tensor.name: None for tensor in inputs}


def _axes_of_recurrent(inputs: Sequence[GraphInput], nodes: Sequence[Any]) -> Iterator[Any]:
    """Yield inputs that a recurrent operator reads, with the axis of its batch."""
    same = {tensor.name: tensor.name for tensor in inputs}
    for node in nodes:
        if node.op_type in _PASSING and node.output and {*node.input[:1]} & {*same}:
            same[node.output[0]] = same[node.input[0]]
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
            for k in (0, 5, 6):
                if k < len(node.input) and node.input[k] in same:
                    yield same[node.input[k]], 0 if layout else 1


def _options(tensor: GraphInput, names: set[str], known: int | None) -> list[int | None]:
    rank = len(tensor.dims)
    named = [k for k, d in enumerate(tensor.dims) if d in names]
    if named:
        order = named
    else:
        free = [k for k, d in enumerate(tensor.dims) if not isinstance(d, int)]
        ones = [k for k, d in enumerate(tensor.dims) if d == 1]
        order = [
            *([0] if 0 in free else []),
            *([0] if 0 in ones else []),
            *free,
            *ones,
            *range(rank),
        ]
    if known is not None and known < rank:
        order = [known, *order]
    return [*dict.fromkeys(order), None]


def tensor_specs(
    inputs: Sequence[GraphInput], choice: Choice, known: Mapping[str, int] = {}
) -> tuple[list[TensorSpec], int | None]:
    """Return the model's inputs, and the fixed size of the batch in the file if it has one.

    ``known`` are sizes by the names that they would have.
    """
    sizes = {tensor.dims[k] for tensor in inputs if (k := choice[tensor.name]) is not None}
    batch = sizes.pop() if len(sizes) == 1 else None
    taken: dict[str, str] = {}
    symbols = [d for t in inputs for d in t.dims if isinstance(d, str)]

    def symbol(name: str | None, own: str) -> str:
        key = name or own
        if key not in taken:
            base = (name or STEPS).replace("*", "_").strip() or STEPS
            base = f"{base}_size" if base == BATCH or base.isdigit() else base
            while base in taken.values() or (name is None and base in symbols):
                base += "_"
            taken[key] = base
        return taken[key]

    specs = []
    for tensor in inputs:
        shape: list[Dim] = []
        for axis, size in enumerate(tensor.dims):
            if axis == choice[tensor.name]:
                shape.append(BATCH)
            elif isinstance(size, int):
                shape.append(size)
            else:
                name = symbol(size, f"{tensor.name}:{axis}")
                shape.append(known.get(name, name))
        specs.append(TensorSpec(tensor.name, tuple(shape), integer=tensor.kind == "i"))
    return specs, batch if isinstance(batch, int) else None


def file_names(
    inputs: Sequence[GraphInput], choice: Choice, specs: Sequence[TensorSpec]
) -> dict[str, str]:
    """Return how the file calls the free sizes of inputs, by their names in the model.

    A size without a name in the file has that of the model; an unnamed batch is not in it.
    """
    names: dict[str, str] = {}
    for tensor, spec in zip(inputs, specs, strict=True):
        for axis, (size, own) in enumerate(zip(tensor.dims, spec.shape, strict=True)):
            name = size if isinstance(size, str) or axis == choice[tensor.name] else own
            if isinstance(own, str) and isinstance(name, str):
                names.setdefault(own, name)
    return names
