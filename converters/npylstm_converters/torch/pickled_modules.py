"""The modules in a pickle: their tensors by name, as in a state_dict, and their attributes.

A pickled module is a foreign object whose state holds ``_parameters``, ``_buffers`` and
``_modules``. Its class is only a name; nothing of it is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.torch.packed_parameters import plain_module
from npylstm_converters.torch.pickle_values import Opaque, Tensor
from npylstm_converters.torch.quantized import ADVICE, is_quantized

__all__ = ["PickledModule", "flatten", "foreign_reason", "is_module"]

_MOST_MODULES = 20_000
_DEEPEST = 100
# Hooks that only compute a weight; their tensors are folded (torch/reparametrized.py).
_HOOKS_OF_WEIGHTS = (
    "torch.nn.utils.weight_norm.WeightNorm",
    "torch.nn.utils.spectral_norm.SpectralNorm",
    "torch.nn.utils.prune.",
)
_WAY_OUT = "convert the module where it is in memory: from_torch(module, example)"


@dataclass(frozen=True)
class PickledModule:
    """A module of a pickled tree.

    Attributes
    ----------
    cls
        Its class: ``torch.nn.modules.rnn.LSTM``.
    attributes
        Its attributes, without its tensors and submodules.
    children
        The paths of its submodules, in order.
    """

    cls: str
    attributes: Mapping[str, Any]
    children: tuple[str, ...]

    @property
    def short(self) -> str:
        """The class without its module."""
        return self.cls.rpartition(".")[2]


def is_module(value: Any) -> bool:
    """Whether a value of a pickle is a module."""
    return isinstance(value, Opaque) and {"_parameters", "_modules"} <= value.attributes.keys()


def foreign_reason(value: Opaque) -> str:
    """Return what a foreign object is, and advice where its kind is known."""
    name = str(value.name)
    if "_rebuild_qtensor" in name or "torch.quint" in name:
        return f"a quantized tensor of other than 8-bit signed codes ({name}): {ADVICE}"
    if name == "torch.ScriptObject":
        return f"an object of C++ ({name}) in no form that is known: {ADVICE}"
    return f"an object of {name}, which was not run"


def flatten(
    root: Opaque,
) -> tuple[dict[str, Tensor], dict[str, PickledModule], frozenset[str]]:
    """Return the tensors of a module by name, and all modules by path; the root's path is empty.

    Dynamically quantized modules become float modules. The third result names the tensors that
    they held in 16 bits.

    Raises
    ------
    UnsupportedError
        Lists tensors that are foreign objects, hooks, forwards that are set on an object, and
        modules that are quantized in another way.
    FormatError
        If the tree is damaged, contains itself, or is too large.
    """
    tensors: dict[str, Tensor] = {}
    modules: dict[str, PickledModule] = {}
    reasons: list[str] = []
    halves: set[str] = set()
    todo: list[tuple[str, Opaque, tuple[int, ...]]] = [("", root, ())]
    while todo:
        path, module, above = todo.pop()
        if id(module) in above or len(above) > _DEEPEST:
            raise FormatError(f"{path:.200}: a module that contains itself, or is too deep")
        if len(modules) > _MOST_MODULES:
            raise FormatError(f"more than {_MOST_MODULES} modules")
        dot = f"{path}." if path else ""
        state = module.attributes
        attributes = {k: v for k, v in state.items() if isinstance(k, str) and k[:1] != "_"}
        if is_quantized(str(module.name)):
            reasons += _additions(path, module)
            try:
                cls, own, half = plain_module(path or "the module", module)
            except Refusal as reason:
                reasons.append(str(reason))
                continue
            modules[path] = PickledModule(cls, attributes, ())
            tensors |= {f"{dot}{name}": tensor for name, tensor in own.items()}
            halves |= {f"{dot}{name}" for name in half}
            continue
        own = _table(state, "_parameters", path) | _persistent(state, path)
        for name, value in own.items():
            if isinstance(value, Tensor):
                tensors[f"{dot}{name}"] = value
            elif isinstance(value, Opaque):
                reasons.append(f"{dot}{name}: {foreign_reason(value)}")
            elif value is not None:
                raise FormatError(f"{dot}{name}: expected a tensor, got {type(value).__name__}")
        reasons += _additions(path, module)
        children = _table(state, "_modules", path)
        found = {k: m for k, m in children.items() if is_module(m)}
        odd = [k for k, m in children.items() if m is not None and k not in found]
        reasons += [
            f"{dot}{k}: expected a module, the file holds {_what(children[k])}" for k in odd
        ]
        modules[path] = PickledModule(
            str(module.name), attributes, tuple(f"{dot}{k}" for k in found)
        )
        todo += [(f"{dot}{k}", m, (*above, id(module))) for k, m in reversed(found.items())]
    if reasons:
        raise UnsupportedError(reasons)
    return tensors, modules, frozenset(halves)


def _what(value: Any) -> str:
    return foreign_reason(value) if isinstance(value, Opaque) else f"a {type(value).__name__}"


def _table(state: Mapping[Any, Any], name: str, path: str) -> dict[str, Any]:
    found = state.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(k, str) for k in found):
        raise FormatError(f"{path or 'the module'}: {name}: expected names")
    return dict(found)


def _persistent(state: Mapping[Any, Any], path: str) -> dict[str, Any]:
    """Return the buffers that a state_dict would hold."""
    left_out = state.get("_non_persistent_buffers_set")
    buffers = _table(state, "_buffers", path)
    return {
        k: v
        for k, v in buffers.items()
        if not isinstance(left_out, (set, frozenset)) or k not in left_out
    }


def _additions(path: str, module: Opaque) -> list[str]:
    """Return reasons for what changes a module's forward from outside its class."""
    found = []
    label = f"{path or 'the module'} ({module.name.name})"
    for table in ("_forward_hooks", "_forward_pre_hooks"):
        hooks = module.attributes.get(table)
        several = [*hooks.values()] if isinstance(hooks, dict) else [hooks] if hooks else []
        for hook in several:
            name = str(hook.name) if isinstance(hook, Opaque) else type(hook).__name__
            if not name.startswith(_HOOKS_OF_WEIGHTS):
                found.append(f"{label}: has a hook on its forward, {name}; {_WAY_OUT}")
    if {"forward", "_call_impl"} & module.attributes.keys():
        found.append(f"{label}: its forward was replaced on the object; {_WAY_OUT}")
    return found
