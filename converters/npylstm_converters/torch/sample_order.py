"""Samples that forward sorts by length, to pack them, and brings back into their order.

Samples do not depend on one another, so the order in which they are computed does not matter: a
program without the sorting gives the same outputs, if these are in the original order again.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from npylstm_converters.errors import Reasons
from npylstm_converters.torch.nodes import is_number, place_of, traced

__all__ = ["SampleOrder", "sample_order"]

_SORTS = ("aten.sort.default", "aten.sort.stable")
_ARGSORTS = ("aten.argsort.default", "aten.argsort.stable")
_FILLS = re.compile(r"aten\.(new_)?(zeros|ones|full|empty)(_like)?\.")  # read sizes only


@dataclass(frozen=True)
class SampleOrder:
    """The nodes of a program that only sort samples.

    Attributes
    ----------
    same
        The nodes that are another one with its samples in another order.
    unused
        The nodes that compute the order.
    """

    same: dict[Any, Any] = field(default_factory=dict)
    unused: set[Any] = field(default_factory=set)


def sample_order(graph: Any, batches: Collection[Any], reasons: Reasons) -> SampleOrder:
    """Return the nodes that sort samples; add a reason where the order is not restored."""
    found = SampleOrder()
    orders: dict[Any, tuple[Any, bool]] = {}  # permutations: the sort, and whether it is undone
    sorted_by: dict[Any, Any] = {}  # tensors with samples in another order: the sort
    inputs = {node for node in graph.nodes if node.op == "placeholder"}
    depends: set[Any] = set()  # on inputs that have samples
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node in inputs:
            depends |= {node} if _has_batch(node, batches) else set()
            continue
        target = str(node.target)
        if depends & {*sources} and not is_number(node) and not _FILLS.match(target):
            depends.add(node)
        if target in _SORTS + _ARGSORTS and _sorts_samples(node, batches):
            x = node.args[0]
            key, undone = orders.get(x, (None, False))
            order = (node, False) if key is None else (key, True)
            if key is not None and undone:
                reasons.add(f"sorts samples twice in {place_of(node)}")
            found.unused.add(node)
            if target in _ARGSORTS:
                orders[node] = order
            for user in node.users if target in _SORTS else ():
                found.unused.add(user)
                if user.args[1] == 1:
                    orders[user] = order
                elif key is None:
                    found.same[user] = x
                    sorted_by[user] = node
            continue
        if node.target is operator.getitem and node.args[0] in found.unused:
            continue
        index = _index_of(node)
        if index in orders:
            key, undone = orders[index]
            before = sorted_by.get(node.args[0])
            if before is not (key if undone else None):
                reasons.add(f"the order of samples is mixed up in {place_of(node)}")
            found.same[node] = node.args[0]
            if not undone:
                sorted_by[node] = key
            continue
        keys = {sorted_by.get(s) for s in sources if s in depends and _has_batch(s, batches)}
        if any(s in orders for s in sources) and node.op != "output":
            reasons.add(f"computes with the order of samples in {place_of(node)}")
        if node.op == "output":
            if keys - {None} or any(s in orders for s in sources):
                reasons.add(
                    "outputs are in the order of the samples' lengths: bring them back in forward "
                    "(y[torch.argsort(order)]), or pack with enforce_sorted=False, without sorting"
                )
        elif len(keys) > 1:
            reasons.add(f"samples in two orders are combined in {place_of(node)}")
        elif keys and None not in keys:
            (sorted_by[node],) = keys
    return found


def _has_batch(node: Any, batches: Collection[Any]) -> bool:
    value = node.meta.get("val")
    several = value if isinstance(value, (list, tuple)) else [value]
    sizes = [
        d if isinstance(d, int) else d.node.expr for v in several for d in getattr(v, "shape", ())
    ]
    return any(size in batches for size in sizes if not isinstance(size, int))


def _sorts_samples(node: Any, batches: Collection[Any]) -> bool:
    shape = traced(node.args[0])
    return len(shape) == 1 and shape[0] in batches


def _index_of(node: Any) -> Any:
    """Return the node whose values are the indices of the entries that another takes."""
    target = str(node.target)
    if target == "aten.index_select.default":
        return node.args[2]
    if target == "aten.index.Tensor":
        given = [index for index in node.args[1] if index is not None]
        return given[0] if len(given) == 1 else None
    return None
