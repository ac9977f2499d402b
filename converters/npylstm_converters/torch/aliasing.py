"""Which tensors of a traced program share memory, and what its in-place operations write to.

``values.relu_()`` also changes every other view of ``values``. Imports torch when called.
"""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Mapping
from typing import Any

from npylstm import UnsupportedError
from npylstm_converters.torch.free_sizes import free_sizes
from npylstm_converters.torch.nodes import operation_of, place_of, shape_of
from npylstm_converters.torch.running import quiet

__all__ = ["bases", "functional", "in_place_form", "writes_are_plain"]


def in_place_form(node: Any) -> str | None:
    """Return the out-of-place form of an in-place operation, ``relu`` for ``relu_``, or None."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return None
    name, _, overload = str(node.target).rpartition(".")
    return f"{name.removesuffix('_')}.{overload}" if name.endswith("_") else str(node.target)


def bases(graph: Any) -> dict[Any, Any]:
    """Return for each node the node whose memory its output may share: mostly itself."""
    base: dict[Any, Any] = {}
    for node in graph.nodes:
        source = _source(node, base)
        base[node] = node if source is None else base[source]
    return base


def functional(program: Any) -> Any:
    """Return a program without in-place operations whose writes other views show.

    torch follows the views. It does not see that some operations return their input, so these are
    taken out before.

    Raises
    ------
    UnsupportedError
        If an operation returns a view without saying so in its schema.
    """
    if writes_are_plain(program.graph):
        return program
    shared = {n: source for n in program.graph.nodes if (source := _undeclared_source(n))}
    for node, source in shared.items():
        if _layout(node) != _layout(source):
            raise UnsupportedError(
                f"forward writes in place to memory that {operation_of(node)} shares, in "
                f"{place_of(node)}: write to a copy, x.clone()"
            )
    same = {node.name: source.name for node, source in shared.items()}
    with quiet(), free_sizes():
        return (_without(program, same) if same else program).run_decompositions({})


def _without(program: Any, same: Mapping[str, str]) -> Any:
    """Return a copy of a program in which nodes are replaced by the nodes that they return."""
    graph_module = copy.deepcopy(program.graph_module)
    signature = copy.deepcopy(program.graph_signature)
    nodes = {n.name: n for n in graph_module.graph.nodes}
    for name, source in same.items():
        nodes[name].replace_all_uses_with(nodes[source])
        graph_module.graph.erase_node(nodes[name])
        nodes[name] = nodes[source]
    for spec in signature.output_specs:
        if spec.arg.name in same:
            spec.arg.name = nodes[spec.arg.name].name
    graph_module.recompile()
    return program._update(graph_module, signature)


def writes_are_plain(graph: Any) -> bool:
    """Whether no in-place write changes a tensor that a later operation reads by another view."""
    if not any(in_place_form(node) for node in graph.nodes):
        return True
    order = {node: k for k, node in enumerate(graph.nodes)}
    base = bases(graph)
    for node in graph.nodes:
        if in_place_form(node) is None:
            continue
        first = node.args[0]
        twins = [
            n for n in base
            if base[n] is base.get(first) and n not in (first, node) and order[n] < order[node]
        ]  # fmt: skip
        if any(order[user] > order[node] for twin in twins for user in twin.users):
            return False
    return True


def _source(node: Any, base: dict[Any, Any]) -> Any:
    """Return the argument whose memory the output of a node may share, or None."""
    if node.op != "call_function" or not node.args:
        return None
    first = node.args[0]
    if node.target is operator.getitem:  # of the views that chunk returns, not of an LSTM's outputs
        return first if base.get(first, first) is not first else None
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return None
    if any(r.alias_info is not None for r in schema.returns):
        return first if first in base else None
    return _undeclared_source(node)


def _undeclared_source(node: Any) -> Any:
    """Return the argument whose memory an operation returns, though its schema does not show that.

    Such are dropout in inference and ``type_as`` of the same type. A trial with tensors without
    numbers shows it.
    """
    import torch
    from torch.utils import _pytree as pytree

    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema, kernels = node.target._schema, torch._C._dispatch_has_kernel_for_dispatch_key
    if len(schema.returns) != 1 or not kernels(node.target.name(), "CompositeImplicitAutograd"):
        return None
    if any(a.alias_info is not None for a in (*schema.returns, *schema.arguments)):
        return None
    inputs = node.all_input_nodes
    with contextlib.suppress(Exception):  # the operation may need numbers: then it computes
        given = {n: pytree.tree_map(_without_numbers, n.meta.get("val")) for n in inputs}
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), given.get)
        made = pytree.tree_leaves(node.target(*args, **kwargs))
        memories = {_memory(v) for v in made if isinstance(v, torch.Tensor)}
        for source, value in given.items():
            if isinstance(value, torch.Tensor) and _memory(value) in memories:
                return source
    return None


def _without_numbers(value: Any) -> Any:
    """Return a traced value with the example's sizes; a tensor on the meta device."""
    import torch

    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value.node.hint
    if not isinstance(value, torch.Tensor):
        return value
    shape, strides = ([*map(_without_numbers, v)] for v in (value.shape, value.stride()))
    return torch.empty_strided(shape, strides, dtype=value.dtype, device="meta")


def _layout(node: Any) -> tuple[Any, ...]:
    value = node.meta["val"]
    return str(value.dtype), *shape_of(value), *map(str, value.stride()), value.storage_offset()


def _memory(value: Any) -> int:
    return int(value.untyped_storage()._cdata)
