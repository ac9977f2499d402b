"""The ledger of PyTorch's tensors: the layer and the weights that each one is converted to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from npylstm.spec import LayerSpec
from npylstm_converters.toolkit.ledger import Entry, became

__all__ = ["entries_of_module", "entry_of"]

# ``weight_ih_l0_reverse``: an array of a recurrent module, its layer and its direction.
_RECURRENT = re.compile(r"((?:weight|bias)_(?:ih|hh|hr))(?:_l(\d+)(_reverse)?)?")


def entry_of(source: str, shape: Sequence[int], layer: LayerSpec) -> Entry:
    """Return the ledger entry of a tensor in a layer."""
    match = _RECURRENT.fullmatch(source.rpartition(".")[2])
    role, prefix = source.rpartition(".")[2], ""
    if match:
        role = match[1]
        direction = "backward/" if match[3] else "forward/"
        if any(name.startswith(direction) for name in layer.weights):
            prefix = direction
    return Entry(source, tuple(shape), layer.name, became(role, [*layer.weights], prefix))


def entries_of_module(
    prefix: str, shapes: Mapping[str, Sequence[int]], layers: Sequence[LayerSpec]
) -> list[Entry]:
    """Return the ledger entries of a module's tensors; a module may be several layers.

    Parameters
    ----------
    prefix
        What stands before the names of its tensors.
    shapes
        The shapes of its tensors, by their names in the module.
    layers
        Its layers with weights, in order.
    """
    entries = []
    for leaf, shape in shapes.items():
        source = f"{prefix}{leaf}"
        match = _RECURRENT.fullmatch(leaf)
        number = int(match[2]) if match and match[2] and len(layers) > 1 else 0
        known = number < len(layers)
        made = entry_of(source, shape, layers[number]) if known else Entry(source, tuple(shape))
        entries.append(made)
    return entries
