"""The ledger of PyTorch's tensors: which weights of which layer they have become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from npylstm.ops.bidirectional import Bidirectional
from npylstm.spec import LayerSpec
from npylstm_converters.ledger import Entry, became

__all__ = ["entries_of_module", "entry_of"]

# ``weight_ih_l0_reverse``: an array of a recurrent module, its layer and its direction.
_RECURRENT = re.compile(r"((?:weight|bias)_(?:ih|hh|hr))(?:_l(\d+)(_reverse)?)?")


def entry_of(source: str, shape: Sequence[int], layer: LayerSpec) -> Entry:
    """Say what a tensor has become in the layer that took it."""
    match = _RECURRENT.fullmatch(source.rpartition(".")[2])
    role, prefix = source.rpartition(".")[2], ""
    if match:
        role = match[1]
        if isinstance(layer.layer, Bidirectional):
            prefix = "backward/" if match[3] else "forward/"
    return Entry(source, tuple(shape), layer.name, became(role, [*layer.weights], prefix))


def entries_of_module(
    name: str, shapes: Mapping[str, Sequence[int]], layers: Sequence[LayerSpec]
) -> list[Entry]:
    """Say what the tensors of a module have become, which may be several layers.

    Parameters
    ----------
    name
        Of the module.
    shapes
        Of its tensors, by their names in it.
    layers
        Those with weights, in their order.
    """
    entries = []
    for leaf, shape in shapes.items():
        source = leaf if name == "model" else f"{name}.{leaf}"
        match = _RECURRENT.fullmatch(leaf)
        number = int(match[2]) if match and match[2] and len(layers) > 1 else 0
        known = number < len(layers)
        made = entry_of(source, shape, layers[number]) if known else Entry(source, tuple(shape))
        entries.append(made)
    return entries
