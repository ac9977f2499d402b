"""From an exported program to a ModelSpec."""

from __future__ import annotations

import linecache
import operator
import re
from collections.abc import Mapping
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec
from npylstm.layers.base import BATCH, STEPS, Shape
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.torch.builder import Builder, Known, Ref, TracedShape
from npylstm_converters.torch.ops import IGNORED, OPS, TIME_AXES, Call

__all__ = ["spec_of_program"]


def spec_of_program(program: Any, source: str, name: str = "model") -> ModelSpec:
    """Convert a ``torch.export.ExportedProgram``.

    Parameters
    ----------
    program
        As ``torch.export`` made it: recurrent modules are single operations in it.
    source
        What it was made from, for the provenance.
    name
        Of the model.

    Raises
    ------
    UnsupportedError
        Listing every operation that stands in the way, with the line that it comes from.
    """
    import torch

    reasons = Reasons()
    constants = _constants(program)
    dtype = _weights_type(constants, reasons)
    users = [n for n in program.graph.nodes if n.op == "placeholder" and n.name not in constants]
    for node in users:
        if not isinstance(node.meta.get("val"), torch.Tensor):
            reasons.add(f"input {node.name}: expected a tensor, got {node.meta.get('val')!r:.80}")
    for node, reason in _writes(program):
        reasons.add(f"{node}: {reason}")
    reasons.raise_if_any()
    inputs = _inputs(program.graph, users)
    builder = Builder({t: _traced(n) for t, n in inputs.items()}, dtype)
    values: dict[Any, Any] = {n: Ref(t.name, _traced(n)) for t, n in inputs.items()}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in constants:
            values[node] = Known(constants[node.name])
        elif node.op == "call_function":
            try:
                _step(builder, values, node)
            except Refusal as error:
                reasons.add(f"{_operation(node)} {error} in {_place(node)}")
            except FormatError as error:
                reasons.add(f"{_operation(node)}: {error} in {_place(node)}")
    reasons.raise_if_any()
    outputs = []
    for number, node in enumerate(_user_outputs(program)):
        value = values.get(node)
        if value is None:
            raise npylstm.UnsupportedError([f"output {number}: expected a tensor, got {node!r}"])
        outputs.append(builder.ref(value, f"output_{number}"))
    layers, edges, names = builder.finish(outputs)
    provenance = {
        "framework": "PyTorch",
        "framework_version": str(torch.__version__),
        "source_format": source,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [f"sizes of {t.name}: {_free_sizes(t)}" for t in inputs] + builder.notes,
    }
    return ModelSpec(
        layers=tuple(layers), edges=tuple(edges), inputs=tuple(inputs), outputs=tuple(names),
        name=name, dtype=dtype, provenance=provenance,
    )  # fmt: skip


def _constants(program: Any) -> dict[str, Any]:
    """Tensors that depend on no input, by the name of their placeholder."""
    signature = program.graph_signature
    found: dict[str, Any] = {}
    for name, target in signature.inputs_to_parameters.items():
        found[name] = program.state_dict[target]
    for name, target in signature.inputs_to_buffers.items():
        stored = program.state_dict.get(target)
        found[name] = program.constants[target] if stored is None else stored
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        found[name] = program.constants[target]
    return found


def _weights_type(constants: Mapping[str, Any], reasons: Reasons) -> str:
    types = {str(t.dtype) for t in constants.values() if t.dtype.is_floating_point}
    types = {t.removeprefix("torch.") for t in types}
    reduced = sorted(types - {"float32", "float64"})
    if reduced:
        reasons.add(
            f"weights of type {', '.join(reduced)}: they compute in reduced precision; "
            "convert module.float()"
        )
    elif len(types) > 1:
        reasons.add(f"weights: expected one element type, got {' and '.join(sorted(types))}")
    return types.pop() if len(types) == 1 else "float32"


def _writes(program: Any) -> list[tuple[str, str]]:
    """Buffers that the program writes to: state that lives in the module."""
    return [
        (target, "the module writes to this buffer; hand its state in and out of forward instead")
        for name, target in program.graph_signature.buffers_to_mutate.items()
        if not target.endswith("num_batches_tracked")
    ]


def _traced(node: Any) -> TracedShape:
    return _shape(node.meta["val"])


def _shape(value: Any) -> TracedShape:
    sizes = (d if isinstance(d, int) else d.node.expr for d in value.shape)
    return tuple(int(d) if getattr(d, "is_Integer", False) else d for d in sizes)


def _inputs(graph: Any, users: list[Any]) -> dict[TensorSpec, Any]:
    """Name the free sizes of the inputs: which of them is the batch, the recurrent layers tell."""
    batch = _batch_size(graph, users)
    names: dict[Any, str] = {batch: BATCH}
    specs: dict[TensorSpec, Any] = {}
    problems = []
    for node in users:
        shape: list[int | str] = []
        for size in _traced(node):
            if isinstance(size, int):
                shape.append(size)
                continue
            steps = sum(1 for n in names.values() if n != BATCH)
            shape.append(names.setdefault(size, STEPS if steps == 0 else f"{STEPS}_{steps + 1}"))
        if shape.count(BATCH) != 1:
            problems.append(
                f"input {node.name} {tuple(_traced(node))}: none of its sizes is the batch's; give "
                "an example with a batch, or export with the batch dynamic "
                "(dynamic_shapes, Dim.AUTO)"
            )
        free: Shape = tuple(shape)
        whole = not node.meta["val"].dtype.is_floating_point
        specs[TensorSpec(node.name, free, whole)] = node
    if problems:
        raise npylstm.UnsupportedError(problems)
    return specs


def _batch_size(graph: Any, users: list[Any]) -> Any:
    """Find the free size that is the batch: where recurrent ops have it, else the first axis."""
    known = {size for node in users for size in _traced(node) if not isinstance(size, int)}
    for node in graph.nodes:
        target = str(node.target)
        if node.op != "call_function" or target not in TIME_AXES:
            continue
        shape = _traced(node.args[0])
        axis = TIME_AXES[target](node.args)
        if axis < len(shape) and shape[axis] in known:
            return shape[axis]
    firsts = [_traced(node)[0] for node in users if node.meta["val"].ndim]
    return next((size for size in firsts if not isinstance(size, int)), None)


def _free_sizes(tensor: TensorSpec) -> str:
    free = [str(d) for d in tensor.shape if isinstance(d, str)]
    return f"{', '.join(free)} free" if free else "all pinned"


def _step(builder: Builder, values: dict[Any, Any], node: Any) -> None:
    """Translate one operation and remember what it gives."""
    import torch

    target = str(node.target)
    if target in IGNORED:
        return
    inputs = node.all_input_nodes
    if any(n not in values and not _is_number(n) for n in inputs):
        # Its source was refused. Whether it fits cannot be told, but whether it is known.
        if target not in OPS and node.target is not operator.getitem and not _is_number(node):
            raise Refusal("is not supported")
        return
    if node.target is operator.getitem:
        source = values[node.args[0]]
        if not isinstance(source, (list, tuple)):
            raise Refusal("takes an entry of what is no tuple")
        values[node] = source[node.args[1]]
        return
    if _is_number(node):
        return  # sizes are looked up where they are used
    tensors = [values[n] for n in inputs if n in values]
    if tensors and all(isinstance(v, Known) for v in tensors):
        values[node] = _fold(node, values)
        return
    if target not in OPS:
        raise Refusal("is not supported")
    schema = node.target._schema.arguments
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values.get(n, n))
    positional = dict(zip((a.name for a in schema), args, strict=False))
    bound = {
        a.name: {**positional, **kwargs}.get(
            a.name, a.default_value if a.has_default_value() else None
        )
        for a in schema
    }
    value = node.meta.get("val")
    outputs = value if isinstance(value, (list, tuple)) else [value]
    call = Call(builder, node.name, _module(node), bound, [_shape(v) for v in outputs])
    values[node] = OPS[target](call)


def _is_number(node: Any) -> bool:
    """Whether a node gives a size or another plain number."""
    import torch

    plain = (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)
    return isinstance(node.meta.get("val"), plain)


def _fold(node: Any, values: Mapping[Any, Any]) -> Any:
    """Compute what depends on no input now, by torch itself (weight norm, say)."""
    import torch

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n].value)
    with torch.no_grad():
        made = node.target(*args, **kwargs)
    return [Known(v) for v in made] if isinstance(made, (list, tuple)) else Known(made)


def _user_outputs(program: Any) -> list[Any]:
    wanted = program.graph_signature.user_outputs
    by_name = {n.name: n for n in program.graph.nodes}
    return [by_name.get(name, name) if isinstance(name, str) else name for name in wanted]


def _operation(node: Any) -> str:
    return re.sub(r"^aten\.|\.default$", "", str(node.target))


def _module(node: Any) -> tuple[str, str]:
    """Path and class of the innermost module that an operation comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, cls = stack[-1]
    cls_name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__name__}"
    return str(path), cls_name


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n?(?P<code>[^\n]*)')


def _place(node: Any) -> str:
    """The module's path and the user's own source line."""
    path, cls = _module(node)
    module = f"{path} ({cls.rpartition('.')[2]})" if path else "forward"
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    own = [f for f in frames if not re.search(r"[/\\]torch[/\\]", f["file"])] or frames
    if not own:
        return module
    frame = own[-1]
    code = frame["code"].strip() or linecache.getline(frame["file"], int(frame["line"])).strip()
    file = re.split(r"[/\\]", frame["file"])[-1]
    return f"{module}, {file}:{frame['line']}: {code}"
