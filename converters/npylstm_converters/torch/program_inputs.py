"""The inputs of an exported program: the user's tensors with free sizes, and the module's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from npylstm.ops.shapes import BATCH, STEPS
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Reasons
from npylstm_converters.torch.aliasing import bases, in_place_form
from npylstm_converters.torch.batches import FixedBatchError
from npylstm_converters.torch.builder import TracedShape
from npylstm_converters.torch.nodes import is_integer, traced
from npylstm_converters.torch.rows import TIME_AXES

__all__ = ["ModuleTensor", "batch_sizes", "element_type", "free_sizes", "module_tensors",
           "named_inputs", "user_inputs", "written_tensors"]  # fmt: skip


class ModuleTensor(NamedTuple):
    """A parameter, a buffer or a constant of the module: its name there, and its value."""

    name: str
    value: Any


def module_tensors(program: Any) -> dict[str, ModuleTensor]:
    """Return the tensors that depend on no input, by placeholder name."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    stored = {**program.constants, **program.state_dict}
    return {place: ModuleTensor(str(name), stored[name]) for place, name in names.items()}


def user_inputs(program: Any, own: Mapping[str, ModuleTensor]) -> tuple[list[Any], list[Any]]:
    """Return the nodes of the inputs that are not the module's own: tensors, and others."""
    import torch

    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name not in own]
    tensors = [n for n in nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    return tensors, [n for n in nodes if n not in tensors]


def element_type(own: Sequence[ModuleTensor], users: Sequence[Any], reasons: Reasons) -> str:
    """Return the floating-point type of all computations: that of all tensors with axes."""
    tensors = [*(entry.value for entry in own), *(node.meta["val"] for node in users)]
    floats = [t for t in tensors if t.ndim and not is_integer(t)]
    types = {str(t.dtype).removeprefix("torch.") for t in floats}
    others = sorted(types - {"float32", "float64"})
    if others:
        reasons.add(
            f"tensors of type {', '.join(others)} are not supported: convert module.float() with "
            "an example of float32"
        )
    elif len(types) > 1:
        reasons.add(f"tensors: expected one element type, got {' and '.join(sorted(types))}")
    if any(entry.value.is_meta for entry in own):
        reasons.add("weights on the meta device, which holds no numbers")
    return types.pop() if len(types) == 1 else "float32"


def written_tensors(program: Any, own: Mapping[str, ModuleTensor]) -> list[str]:
    """Return the module's tensors that the program writes to: state in the module."""
    written = dict.fromkeys(program.graph_signature.buffers_to_mutate.values())
    base = bases(program.graph)
    for node in program.graph.nodes:
        if in_place_form(node) is not None:
            owner = base.get(node.args[0])
            if owner is not None and owner.name in own:
                written[own[owner.name].name] = None
    return [name for name in written if not name.endswith("num_batches_tracked")]


def named_inputs(graph: Any, users: list[Any]) -> dict[TensorSpec, Any]:
    """Return the inputs with named free sizes; recurrent layers determine the batch."""
    batches = batch_sizes(graph, users)
    names: dict[Any, str] = dict.fromkeys(batches, BATCH)
    alone = not batches and _is_one_sequence(graph, users)
    specs: dict[TensorSpec, Any] = {}
    problems = []
    for node in users:
        shape: list[int | str] = []
        for size in traced(node):
            if isinstance(size, int):
                shape.append(size)
                continue
            steps = sum(1 for n in names.values() if n != BATCH)
            shape.append(names.setdefault(size, STEPS if steps == 0 else f"{STEPS}_{steps + 1}"))
        if shape.count(BATCH) != 1 and not alone:
            problems.append(
                f"input {node.name} {tuple(traced(node))}: none of its sizes is the batch's, or "
                "forward pins it; give an example with a batch, write sizes as x.size(0), export "
                "with the batch dynamic (dynamic_shapes, Dim.AUTO)"
            )
        specs[TensorSpec(node.name, tuple(shape), is_integer(node.meta["val"]))] = node
    if problems:
        raise FixedBatchError(problems)
    return specs


def _is_one_sequence(graph: Any, users: Sequence[Any]) -> bool:
    """Whether inputs have no batch axis: recurrent ops run over one sequence that forward makes."""
    shapes = [
        (traced(node.args[0]), TIME_AXES[str(node.target)](node.args))
        for node in graph.nodes
        if node.op == "call_function" and str(node.target) in TIME_AXES
    ]
    ones = [axis < len(shape) and shape[axis] == 1 for shape, axis in shapes]
    return bool(ones) and all(ones) and not any(1 in traced(node) for node in users)


def batch_sizes(graph: Any, users: list[Any]) -> dict[Any, None]:
    """Return the free sizes of the batch axes: those of recurrent ops, else of the first axes.

    There are several if no operation joins the inputs: torch then treats them as different. None if
    forward fixes the batch of its recurrent ops.
    """
    fixed = False
    known = {size for node in users for size in traced(node) if not isinstance(size, int)}
    found: dict[Any, None] = {}
    for node in graph.nodes:
        target = str(node.target)
        if node.op != "call_function" or target not in TIME_AXES:
            continue
        shape = traced(node.args[0])
        axis = TIME_AXES[target](node.args)
        if axis < len(shape) and shape[axis] in known:
            found[shape[axis]] = None
        fixed |= axis < len(shape) and isinstance(shape[axis], int)
    for node in users if found or not fixed else ():
        shape = traced(node)
        if shape and not isinstance(shape[0], int) and not set(shape) & set(found):
            found[shape[0]] = None
    return found


def free_sizes(program: Any) -> tuple[list[TracedShape], dict[Any, None]]:
    """Return the traced shapes of a program's tensor inputs, and the batch sizes."""
    users, _ = user_inputs(program, module_tensors(program))
    return [traced(n) for n in users], batch_sizes(program.graph, users)
