"""TorchScript as a module that torch.export can trace: its graph, interpreted node by node.

The tensors keep their names, free sizes stay free, and conditions on sizes and on arguments that
are None are decided by the example, as in a Python module. Imports torch when called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, Signature
from typing import Any

from npylstm import UnsupportedError
from npylstm_converters.torch.dequantizing import Dequantized
from npylstm_converters.torch.script_quantized import (
    OPERATIONS,
    PackedParameters,
    packed_parameters,
    refuse_others,
)
from npylstm_converters.torch.script_values import function_of

__all__ = ["module_of_script", "written_attributes"]


def module_of_script(scripted: Any) -> Dequantized:
    """Return a ``torch.nn.Module`` that computes what a ``torch.jit.ScriptModule`` does.

    Of quantized modules it holds the dequantized weights. Its forward raises UnsupportedError at an
    operation of TorchScript that is not supported.
    """
    import torch

    graph = scripted.inlined_graph
    arguments = scripted.forward.schema.arguments[1:]

    class Scripted(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *args: Any) -> Any:
            rest = [a.default_value for a in arguments[len(args) :]]
            return _Run(self, scripted, packed).outputs(graph, [None, *args, *rest])[0]

    own = [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
    own += [
        Parameter(a.name, Parameter.POSITIONAL_OR_KEYWORD, default=_default(a)) for a in arguments
    ]
    Scripted.forward.__signature__ = Signature(own)  # type: ignore[attr-defined]
    Scripted.__name__ = Scripted.__qualname__ = scripted.original_name
    made = Scripted()
    refuse_others(node.kind() for node in _all_nodes(graph))
    packed = _packed(scripted, graph)
    tensors = _tensors(scripted, graph)
    for parameters in packed.values():
        tensors |= parameters.tensors
    for name, tensor in tensors.items():
        _hold(made, name, tensor)
    codes, halves = (
        [*dict.fromkeys(p.module for p in packed.values() if p.is_codes is kind)]
        for kind in (True, False)
    )
    return Dequantized(made.eval(), codes, halves)


def written_attributes(scripted: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Yield the attributes that TorchScript's forward assigns: path, owner, name, and value."""
    import torch

    if not isinstance(scripted, torch.jit.ScriptModule):
        return
    for node in _all_nodes(scripted.inlined_graph):
        if node.kind() == "prim::SetAttr":
            owner, path = _owner(scripted, node)
            if owner is not None:
                name = node.s("name")
                yield f"{path}{name}", owner, name, getattr(owner, name)


def _default(argument: Any) -> Any:
    return argument.default_value if argument.has_default_value() else Parameter.empty


def _all_nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all_nodes(inner)


def _tensors(scripted: Any, graph: Any) -> dict[str, Any]:
    """Return all tensors by name: parameters, buffers, other attributes, constants of the graph."""
    import torch

    found = {**dict(scripted.named_parameters()), **dict(scripted.named_buffers())}
    for node in _all_nodes(graph):
        if node.kind() == "prim::GetAttr":
            owner, path = _owner(scripted, node)
            value = None if owner is None else getattr(owner, node.s("name"))
            if isinstance(value, torch.Tensor):
                found.setdefault(f"{path}{node.s('name')}", value)
        elif node.kind() == "prim::Constant":
            found.update(_named(node))
    return found


def _owner(scripted: Any, node: Any) -> tuple[Any, str]:
    """Return the module whose attribute a node reads or writes, and its path with a final dot."""
    names: list[str] = []
    source = node.inputsAt(0).node()
    while source.kind() == "prim::GetAttr":
        names.insert(0, source.s("name"))
        source = source.inputsAt(0).node()
    if source.kind() != "prim::Param":
        return None, ""
    owner = scripted
    for name in names:
        owner = getattr(owner, name)
    return owner, "".join(f"{name}." for name in names)


def _constant(node: Any) -> Any:
    value = node.output()
    return None if value.type().kind() == "NoneType" else value.toIValue()


def _named(node: Any) -> dict[str, Any]:
    """Return the tensors of a constant by name: it may be one, or a list."""
    import torch

    value, name = _constant(node), str(node.output().debugName()).removeprefix("self.")
    name = f"constant_{name}" if name.isdigit() else name
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
        return {f"{name}.{k}": tensor for k, tensor in enumerate(value)}
    return {}


def _objects(node: Any) -> dict[str, Any]:
    """Return the objects of a constant by name: it may be one, or a list."""
    value, name = _constant(node), str(node.output().debugName()).removeprefix("self.")
    name = f"constant_{name}" if name.isdigit() else name
    several = enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {f"{name}.{k}.param": v for k, v in several} or {name: value}


def _packed(scripted: Any, graph: Any) -> dict[str, PackedParameters]:
    """Return the packed parameters of quantized modules by the names of what holds them."""
    values: dict[str, Any] = {}
    for node in _all_nodes(graph):
        if node.kind() == "prim::GetAttr":
            owner, path = _owner(scripted, node)
            if owner is not None:
                values[f"{path}{node.s('name')}"] = getattr(owner, node.s("name"))
        elif node.kind() == "prim::Constant":
            values |= _objects(node)
    found = {name: packed_parameters(name, value) for name, value in values.items()}
    return {name: packed for name, packed in found.items() if packed is not None}


def _hold(module: Any, name: str, tensor: Any) -> None:
    """Give a module a tensor under a dotted name."""
    import torch

    *path, leaf = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, torch.nn.Module())
        module = module._modules[part]
    if isinstance(tensor, torch.nn.Parameter):
        module.register_parameter(leaf, tensor)
    else:
        module.register_buffer(leaf, tensor.detach())


class _Run:
    """One call of TorchScript's forward."""

    def __init__(self, module: Any, scripted: Any, packed: Mapping[str, PackedParameters]) -> None:
        self._module, self._scripted, self._packed = module, scripted, packed
        self._values: dict[str, Any] = {}
        self._written: dict[str, Any] = {}  # attributes that forward assigned

    def outputs(self, block: Any, inputs: list[Any]) -> list[Any]:
        """Return the outputs of a graph or of a block for these inputs."""
        for value, given in zip(block.inputs(), inputs, strict=True):
            self._values[value.debugName()] = given
        for node in block.nodes():
            made = self._compute(node)
            names = [value.debugName() for value in node.outputs()]
            if names:
                values = [made] if len(names) == 1 else made
                self._values.update(zip(names, values, strict=True))
        return [self._values[value.debugName()] for value in block.outputs()]

    def _compute(self, node: Any) -> Any:
        """Return the output of a node, or a list of its outputs if there are none or several."""
        kind = node.kind()
        if kind == "prim::Constant":
            value = _constant(node)
            tensors = [self._held(name) for name in _named(node)]
            if objects := [self._unpacked(k) for k in _objects(node) if k in self._packed]:
                return objects if isinstance(value, list) else objects[0]
            return value if not tensors else tensors if isinstance(value, list) else tensors[0]
        if kind in ("prim::GetAttr", "prim::SetAttr"):
            return self._attribute(node)
        given = [self._values[value.debugName()] for value in node.inputs()]
        if kind == "prim::If":
            taken, other = node.blocks()
            made = self.outputs(taken if given[0] else other, [])
        elif kind == "prim::Loop":
            made = self._loop(node, *given)
        else:
            function = OPERATIONS.get(kind) or function_of(kind, given)
            if function is None and not kind.startswith("aten::"):
                raise UnsupportedError(f"{kind} of TorchScript is not supported")
            return _call(node, given) if function is None else function(*given)
        return made[0] if node.outputsSize() == 1 else made

    def _loop(self, node: Any, most: Any, goes_on: Any, *carried: Any) -> list[Any]:
        (body,) = node.blocks()
        values, number = list(carried), 0
        while number < most and goes_on:
            goes_on, *values = self.outputs(body, [number, *values])
            number += 1
        return values

    def _attribute(self, node: Any) -> Any:
        import torch

        owner, path = _owner(self._scripted, node)
        name = f"{path}{node.s('name')}"
        if node.kind() == "prim::SetAttr":
            self._written[name] = self._values[node.inputsAt(1).debugName()]
            return []
        if name in self._written:
            return self._written[name]
        if owner is None:  # of an object that is no module
            raise UnsupportedError(f"TorchScript reads the attribute {node.s('name')} of an object")
        value = getattr(owner, node.s("name"))
        if isinstance(value, torch.Tensor):
            return self._held(name)
        if name in self._packed:
            return self._unpacked(name)
        if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            return [self._same(tensor) for tensor in value]
        return None if isinstance(value, torch.jit.ScriptModule) else value

    def _held(self, name: str) -> Any:
        *path, leaf = name.split(".")
        module = self._module
        for part in path:
            module = getattr(module, part)
        return getattr(module, leaf)

    def _unpacked(self, name: str) -> list[Any]:
        """Return the tensors of packed parameters."""
        return [self._held(part) for part in self._packed[name].tensors]

    def _same(self, tensor: Any) -> Any:
        """Return the module's own tensor for one in a list of weights."""
        owned = (*self._scripted.named_parameters(), *self._scripted.named_buffers())
        return next((self._held(name) for name, own in owned if own is tensor), tensor)


def _call(node: Any, given: list[Any]) -> Any:
    """Call torch's operation, with the arguments in the order of its schema."""
    import torch

    schema = torch._C.parse_schema(node.schema())
    namespace, name = schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name)
    overload = schema.overload_name or "default"
    if name == "to" and overload.startswith("prim_"):  # of arguments that may be None
        return given[0].to(*(v for v in given[1:3] if v is not None and not isinstance(v, bool)))
    operation: Callable[..., Any] = getattr(packet, overload)
    pairs = list(zip(schema.arguments, given, strict=True))
    return operation(
        *(value for argument, value in pairs if not argument.kwarg_only),
        **{argument.name: value for argument, value in pairs if argument.kwarg_only},
    )
