"""From an exported program to a ModelSpec."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec, ShapeError
from npylstm.spec import LayerSpec, TensorSpec
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.toolkit.array_ops import arithmetic
from npylstm_converters.toolkit.ledger import Entry
from npylstm_converters.toolkit.translation import translate
from npylstm_converters.torch.aliasing import in_place_form
from npylstm_converters.torch.builder import Builder, ConstantTensor, Ref, SymbolicSize
from npylstm_converters.torch.calls import Call
from npylstm_converters.torch.ledger import entry_of
from npylstm_converters.torch.logic_ops import cast
from npylstm_converters.torch.nodes import (
    is_integer,
    is_number,
    module_of,
    operation_of,
    place_of,
    shape_of,
    traced,
)
from npylstm_converters.torch.program_inputs import (
    ModuleTensor,
    batch_sizes,
    element_type,
    module_tensors,
    named_inputs,
    user_inputs,
    written_tensors,
)
from npylstm_converters.torch.rows import IGNORED, ROWS
from npylstm_converters.torch.sample_order import sample_order

__all__ = ["spec_of_program"]


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
    own = module_tensors(program)
    users, others = user_inputs(program, own)
    for node in others:
        value = node.meta.get("val")
        if not isinstance(value, (type(None), bool, int, float, str)):
            reasons.add(f"input {node.name}: expected a tensor, got {value!r:.80}")
    dtype = element_type([*own.values()], users, reasons)
    for written in written_tensors(program, own):
        reasons.add(
            f"{written}: the module writes to this buffer; pass its state into and out of forward "
            "instead"
        )
    reasons.raise_if_any()
    inputs = named_inputs(program.graph, users)
    order = sample_order(program.graph, batch_sizes(program.graph, users), reasons)
    reasons.raise_if_any()
    builder = Builder({t: traced(n) for t, n in inputs.items()}, dtype, slices_known)
    values: dict[Any, Any] = {n: Ref(t.name, traced(n)) for t, n in inputs.items()}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in own:
            values[node] = ConstantTensor(own[node.name].value)
            builder.origins[id(own[node.name].value)] = (own[node.name].name,)
        elif node in order.same:
            if order.same[node] in values:
                values[node] = values[order.same[node]]
        elif node.op == "call_function" and node not in order.unused:
            try:
                _step(builder, values, node)
            except Refusal as error:
                reasons.add(f"{operation_of(node)} {error} in {place_of(node)}")
            except (FormatError, ShapeError) as error:
                reasons.add(f"{operation_of(node)}: {error} in {place_of(node)}")
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
    ledger = _ledger([*own.values()], builder, layers)
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


def _ledger(
    own: Sequence[ModuleTensor], builder: Builder, layers: Sequence[LayerSpec]
) -> list[Entry]:
    """Return the ledger entries of all tensors of the module; some may be unread."""
    shapes = {entry.name: tuple(entry.value.shape) for entry in own}
    made = [
        entry_of(source, shapes[source], layer)
        for layer in layers
        for source in builder.read.get(layer.name, ())
        if layer.weights
    ]
    taken = {entry.source for entry in made}
    return made + [Entry(name, shape) for name, shape in shapes.items() if name not in taken]


def _free_sizes(tensor: TensorSpec) -> str:
    free = [str(d) for d in tensor.shape if isinstance(d, str)]
    return f"{', '.join(free)} free" if free else "all pinned"


def _step(builder: Builder, values: dict[Any, Any], node: Any) -> None:
    """Translate one operation and store its outputs in ``values``."""
    import torch

    target = str(node.target)
    if target in IGNORED:
        return
    if is_number(node):
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
    if not known and _is_constant(node):
        with torch.no_grad():
            values[node] = ConstantTensor(node.target(*node.args, **node.kwargs))
        return
    if tensors and all(isinstance(v, ConstantTensor) for v in tensors):
        values[node] = _fold(builder, node, values)
    else:
        if not known:
            raise Refusal("is not supported")
        values[node] = _translated(builder, values, node, in_place or target)
    if in_place:  # later readers of the tensor read the written values
        values[node.args[0]] = values[node]


def _is_constant(node: Any) -> bool:
    """Whether a node makes a tensor of known numbers from no tensor: ``torch.eye(3)``."""
    import torch

    made = node.meta.get("val")
    return (
        not node.all_input_nodes
        and isinstance(made, torch.Tensor)
        and all(isinstance(size, int) for size in shape_of(made))
        and not _is_random(node)
    )


def _is_random(node: Any) -> bool:
    """Whether an operation draws random numbers: dropout does not in inference."""
    import torch

    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    names = [a.name for a in node.target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return bool(given.get("train", given.get("training", True)))


def _translated(builder: Builder, values: dict[Any, Any], node: Any, target: str) -> Any:
    """Return the outputs of an operation: bind its arguments to names and translate it."""
    import torch

    made = node.meta.get("val")
    outputs = made if isinstance(made, (list, tuple)) else [made]
    for output in outputs:
        kind = str(output.dtype).removeprefix("torch.")
        if not is_integer(output) and kind != builder.dtype:
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
        and not is_integer(sources[0])
        and is_integer(outputs[0])
        and any(str(user.target) != "aten.embedding.default" for user in node.users)
    )
    changes = truncates and bool(sources) and bound.get("dtype") is not None
    if changes and ROWS[target].function is not cast:
        raise Refusal(
            f"casts to {_dtype(outputs[0])} before it computes: write x.to(dtype) before it"
        )
    shapes = [shape_of(v) for v in outputs]
    types = {id(values[n]): _dtype(n.meta["val"]) for n in node.all_input_nodes}
    kinds = _dtype(outputs[0]), _dtype(sources[0]) if sources else ""
    call = Call(builder, node.name, module_of(node), shapes, truncates, *kinds, types)
    result = translate(ROWS[target], call, (), bound)
    if isinstance(result, (list, tuple)):
        pairs = zip(result, shapes, strict=False)
        return [replace(v, traced=shape) if isinstance(v, Ref) else v for v, shape in pairs]
    return replace(result, traced=shapes[0]) if isinstance(result, Ref) else result


def _dtype(value: Any) -> str:
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


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
    """Return a constant, computed by torch: for operations without inputs, such as weight norm.

    The same computation gives the same constant, so that its calls share a layer.
    """
    import torch

    if _is_random(node):
        raise Refusal("draws random numbers in inference")
    key = repr((str(node.target), torch.fx.node.map_arg(
        (node.args, node.kwargs), lambda n: id(values[n].value)
    )))  # fmt: skip
    if key in builder.folded and in_place_form(node) is None:
        return builder.folded[key]
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
    builder.folded[key] = (
        [ConstantTensor(v) for v in made]
        if isinstance(made, (list, tuple))
        else ConstantTensor(made)
    )
    return builder.folded[key]


def _user_outputs(program: Any) -> list[Any]:
    wanted = program.graph_signature.user_outputs
    by_name = {n.name: n for n in program.graph.nodes}
    return [by_name.get(name, name) if isinstance(name, str) else name for name in wanted]
