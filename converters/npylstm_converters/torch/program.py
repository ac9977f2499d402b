"""From an exported program to a ModelSpec."""

from __future__ import annotations

import contextlib
import linecache
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec, ShapeError
from npylstm.ops.shapes import BATCH, STEPS, Shape
from npylstm.spec import LayerSpec, TensorSpec
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.ledger import Entry
from npylstm_converters.toolkit.array_ops import arithmetic
from npylstm_converters.toolkit.translation import translate
from npylstm_converters.torch.builder import Builder, ConstantTensor, Ref, SymbolicSize, TracedShape
from npylstm_converters.torch.calls import Call
from npylstm_converters.torch.ledger import entry_of
from npylstm_converters.torch.rows import IGNORED, ROWS, TIME_AXES
from npylstm_converters.torch.tracing import bases, in_place_form

__all__ = ["free_sizes", "spec_of_program"]


def spec_of_program(program: Any, source: str, name: str = "model") -> ModelSpec:
    """Return the ModelSpec of a ``torch.export.ExportedProgram``.

    The length of a slice of a free axis follows the actual input. If that fails, it is torch's
    traced length.

    Parameters
    ----------
    program
        From ``torch.export``; each recurrent module is a single operation in it.
    source
        The program's source, for the provenance.
    name
        The model's name.

    Raises
    ------
    UnsupportedError
        Lists every operation that is not supported, with its source line.
    """
    try:
        return _convert(program, source, name, slices_known=False)
    except npylstm.UnsupportedError as error:
        with contextlib.suppress(npylstm.UnsupportedError):
            return _convert(program, source, name, slices_known=True)
        raise error


def _convert(program: Any, source: str, name: str, slices_known: bool) -> ModelSpec:
    import torch

    reasons = Reasons()
    constants = _constants(program)
    plain = (type(None), bool, int, float, str)
    users = []
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name in constants:
            continue
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            users.append(node)
        elif not isinstance(value, plain):
            reasons.add(f"input {node.name}: expected a tensor, got {value!r:.80}")
    dtype = _element_type(constants, users, reasons)
    for written in _writes(program, constants):
        reasons.add(
            f"{written}: the module writes to this buffer; pass its state into and out of forward "
            "instead"
        )
    reasons.raise_if_any()
    inputs = _inputs(program.graph, users)
    builder = Builder({t: _traced(n) for t, n in inputs.items()}, dtype, slices_known)
    values: dict[Any, Any] = {n: Ref(t.name, _traced(n)) for t, n in inputs.items()}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in constants:
            values[node] = ConstantTensor(constants[node.name])
            builder.origins[id(constants[node.name])] = (_target(program, node.name),)
        elif node.op == "call_function":
            try:
                _step(builder, values, node)
            except Refusal as error:
                reasons.add(f"{_operation(node)} {error} in {_place(node)}")
            except (FormatError, ShapeError) as error:
                reasons.add(f"{_operation(node)}: {error} in {_place(node)}")
    reasons.raise_if_any()
    outputs = []
    for number, node in enumerate(_user_outputs(program)):
        try:
            outputs.append(builder.ref(values.get(node), f"output_{number}"))
        except Refusal as error:
            reasons.add(f"output {number}: {error}")
    reasons.raise_if_any()
    names = builder.simplify(builder.finish([t.name for t in outputs]))
    layers = [*builder.layers.values()]
    ledger = _ledger(program, constants, builder, layers)
    provenance = {
        "framework": "PyTorch",
        "framework_version": str(torch.__version__),
        "source_format": source,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [f"sizes of {t.name}: {_free_sizes(t)}" for t in inputs],
        "proof": "proven",
        "stated": [],
        "tensors": [entry.to_json() for entry in ledger],
    }
    return ModelSpec(
        layers=tuple(layers), edges=tuple(builder.edges), inputs=builder.inputs, outputs=names,
        name=name, dtype=dtype, provenance=provenance,
    )  # fmt: skip


def _constants(program: Any) -> dict[str, Any]:
    """Return the tensors that depend on no input, by placeholder name."""
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


def _target(program: Any, placeholder: str) -> str:
    """Return a tensor's name in the module."""
    signature = program.graph_signature
    for table in (signature.inputs_to_parameters, signature.inputs_to_buffers,
                  signature.inputs_to_lifted_tensor_constants):  # fmt: skip
        if placeholder in table:
            return str(table[placeholder])
    return placeholder


def _ledger(
    program: Any, constants: Mapping[str, Any], builder: Builder, layers: Sequence[LayerSpec]
) -> list[Entry]:
    """Return the ledger entries of all tensors of the module; some may be unread."""
    shapes = {_target(program, name): tuple(value.shape) for name, value in constants.items()}
    made = [
        entry_of(source, shapes[source], layer)
        for layer in layers
        for source in builder.read.get(layer.name, ())
        if layer.weights
    ]
    taken = {entry.source for entry in made}
    return made + [Entry(name, shape) for name, shape in shapes.items() if name not in taken]


def _element_type(constants: Mapping[str, Any], users: list[Any], reasons: Reasons) -> str:
    """Return the floating-point type of all computations."""
    tensors = [*constants.values()] or [n.meta["val"] for n in users]
    types = {str(t.dtype).removeprefix("torch.") for t in tensors if not _is_integer(t)}
    types |= {str(n.meta["val"].dtype).removeprefix("torch.") for n in users
              if not _is_integer(n.meta["val"])}  # fmt: skip
    others = sorted(types - {"float32", "float64"})
    if others:
        reasons.add(
            f"tensors of type {', '.join(others)} are not supported: convert module.float() with "
            "an example of float32"
        )
    elif len(types) > 1:
        reasons.add(f"tensors: expected one element type, got {' and '.join(sorted(types))}")
    if any(t.is_meta for t in constants.values()):
        reasons.add("weights on the meta device, which holds no numbers")
    return types.pop() if len(types) == 1 else "float32"


def _is_integer(tensor: Any) -> bool:
    return not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


def _writes(program: Any, constants: Mapping[str, Any]) -> dict[str, None]:
    """Return the parameters and buffers that the program writes to: state in the module."""
    signature = program.graph_signature
    owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    written = dict.fromkeys(signature.buffers_to_mutate.values())
    base = bases(program.graph)
    for node in program.graph.nodes:
        if in_place_form(node) is not None:
            owner = base.get(node.args[0])
            if owner is not None and owner.name in constants:
                written[owners.get(owner.name, owner.name)] = None
    return {name: None for name in written if not name.endswith("num_batches_tracked")}


def _traced(node: Any) -> TracedShape:
    return _shape(node.meta["val"])


def _shape(value: Any) -> TracedShape:
    sizes = (d if isinstance(d, int) else d.node.expr for d in value.shape)
    return tuple(int(d) if getattr(d, "is_Integer", False) else d for d in sizes)


def _inputs(graph: Any, users: list[Any]) -> dict[TensorSpec, Any]:
    """Return the inputs with named free sizes; recurrent layers determine the batch."""
    names: dict[Any, str] = dict.fromkeys(_batch_sizes(graph, users), BATCH)
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
                f"input {node.name} {tuple(_traced(node))}: none of its sizes is the batch's, or "
                "forward pins it; give an example with a batch, write sizes as x.size(0), export "
                "with the batch dynamic (dynamic_shapes, Dim.AUTO)"
            )
        free: Shape = tuple(shape)
        whole = _is_integer(node.meta["val"])
        specs[TensorSpec(node.name, free, whole)] = node
    if problems:
        raise npylstm.UnsupportedError(problems)
    return specs


def _batch_sizes(graph: Any, users: list[Any]) -> dict[Any, None]:
    """Return the free sizes of the batch axes: those of recurrent ops, else of the first axes.

    There are several if no operation joins the inputs: torch then treats them as different.
    """
    known = {size for node in users for size in _traced(node) if not isinstance(size, int)}
    found: dict[Any, None] = {}
    for node in graph.nodes:
        target = str(node.target)
        if node.op != "call_function" or target not in TIME_AXES:
            continue
        shape = _traced(node.args[0])
        axis = TIME_AXES[target](node.args)
        if axis < len(shape) and shape[axis] in known:
            found[shape[axis]] = None
    for node in users:
        shape = _traced(node)
        if shape and not isinstance(shape[0], int) and not set(shape) & set(found):
            found[shape[0]] = None
    return found


def free_sizes(program: Any) -> tuple[list[TracedShape], dict[Any, None]]:
    """Return the traced shapes of a program's tensor inputs, and the batch sizes."""
    import torch

    constants = _constants(program)
    users = [
        n for n in program.graph.nodes
        if n.op == "placeholder" and n.name not in constants
        and isinstance(n.meta.get("val"), torch.Tensor)
    ]  # fmt: skip
    return [_traced(n) for n in users], _batch_sizes(program.graph, users)


def _free_sizes(tensor: TensorSpec) -> str:
    free = [str(d) for d in tensor.shape if isinstance(d, str)]
    return f"{', '.join(free)} free" if free else "all pinned"


def _step(builder: Builder, values: dict[Any, Any], node: Any) -> None:
    """Translate one operation and store its outputs in ``values``."""
    import torch

    target = str(node.target)
    if target in IGNORED:
        return
    if _is_number(node):
        number = node.meta["val"]
        if isinstance(number, torch.SymFloat):
            values[node] = _number(builder, values, node)
        else:
            values[node] = (
                SymbolicSize(number.node.expr) if isinstance(number, torch.SymInt) else number
            )
        return
    inputs = node.all_input_nodes
    in_place = in_place_form(node)
    known = (in_place or target) in ROWS or node.target is operator.getitem
    if any(n not in values for n in inputs):
        if not known:  # its source is unsupported, so the rest cannot be checked
            raise Refusal("is not supported")
        return
    if node.target is operator.getitem:
        source = values[node.args[0]]
        if not isinstance(source, (list, tuple)):
            raise Refusal("takes an entry of what is no tuple")
        values[node] = source[node.args[1]]
        return
    tensors = [values[n] for n in inputs]
    if tensors and all(isinstance(v, ConstantTensor) for v in tensors):
        values[node] = _fold(builder, node, values)
    else:
        if not known:
            raise Refusal("is not supported")
        values[node] = _translated(builder, values, node, in_place or target)
    if in_place:  # later readers of the tensor read the written values
        values[node.args[0]] = values[node]


def _translated(builder: Builder, values: dict[Any, Any], node: Any, target: str) -> Any:
    """Return the outputs of an operation: bind its arguments to names and translate it."""
    import torch

    made = node.meta.get("val")
    outputs = made if isinstance(made, (list, tuple)) else [made]
    for output in outputs:
        kind = str(output.dtype).removeprefix("torch.")
        if not _is_integer(output) and kind != builder.dtype:
            raise Refusal(f"computes in {kind}")
    schema = node.target._schema.arguments
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values.get(n, n))
    given = {**dict(zip((a.name for a in schema), args, strict=False)), **kwargs}
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in schema}
    bound = {a.name: given.get(a.name, defaults[a.name]) for a in schema}
    sources = [n.meta["val"] for n in node.all_input_nodes[:1]]
    truncates = (
        bool(sources)
        and isinstance(sources[0], torch.Tensor)
        and not _is_integer(sources[0])
        and _is_integer(outputs[0])
        and any(str(user.target) != "aten.embedding.default" for user in node.users)
    )
    traced = [_shape(v) for v in outputs]
    call = Call(builder, node.name, _module(node), traced, truncates)
    result = translate(ROWS[target], call, (), bound)
    if isinstance(result, (list, tuple)):
        pairs = zip(result, traced, strict=False)
        return [replace(v, traced=shape) if isinstance(v, Ref) else v for v, shape in pairs]
    return replace(result, traced=traced[0]) if isinstance(result, Ref) else result


def _is_number(node: Any) -> bool:
    """Whether a node returns a size or another plain number."""
    import torch

    plain = (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)
    return isinstance(node.meta.get("val"), plain)


_NUMBER_OPERATIONS = {
    operator.truediv: "divide", operator.mul: "multiply", operator.add: "add",
    operator.sub: "subtract",
}  # fmt: skip


def _number(builder: Builder, values: Mapping[Any, Any], node: Any) -> Any:
    """Return a number computed from sizes: ``1.0 / x.size(1)``."""
    import torch

    args = [values.get(a, a) if isinstance(a, torch.fx.Node) else a for a in node.args]
    if node.target is torch.sym_float:
        return args[0]
    if node.target not in _NUMBER_OPERATIONS:
        raise Refusal("of a size is not supported")
    call = Call(builder, node.name, ("", ""), [()])
    return arithmetic(_NUMBER_OPERATIONS[node.target])(call, *args)


def _fold(builder: Builder, node: Any, values: Mapping[Any, Any]) -> Any:
    """Return a constant, computed by torch: for operations without inputs, such as weight norm."""
    import torch

    args, kwargs = torch.fx.node.map_arg(
        (node.args, node.kwargs), lambda n: values[n].value.clone()
    )
    with torch.no_grad():
        made = node.target(*args, **kwargs)
    several = made if isinstance(made, (list, tuple)) else [made]
    parts = {id(values[n].value) for n in node.all_input_nodes}
    origins = tuple(dict.fromkeys(s for k in parts for s in builder.origins.get(k, ())))
    for value in several:
        builder.origins[id(value)] = origins
    return (
        [ConstantTensor(v) for v in made]
        if isinstance(made, (list, tuple))
        else ConstantTensor(made)
    )


def _user_outputs(program: Any) -> list[Any]:
    wanted = program.graph_signature.user_outputs
    by_name = {n.name: n for n in program.graph.nodes}
    return [by_name.get(name, name) if isinstance(name, str) else name for name in wanted]


def _operation(node: Any) -> str:
    return re.sub(r"^aten\.|\.default$", "", str(node.target))


def _module(node: Any) -> tuple[str, str]:
    """Return path and class of the innermost module that contains an operation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, cls = stack[-1]
    cls_name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__name__}"
    return str(path), cls_name


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n?(?P<code>[^\n]*)')


def _place(node: Any) -> str:
    """Return the module's path and the user's source line."""
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
