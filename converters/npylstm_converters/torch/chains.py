"""Converts ``--layers`` for a state_dict to layers of npylstm.

A chain joins names of modules, and words for the operations between them, by arrows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, STEPS, Shape, format_shape
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.toolkit.ledger import Entry
from npylstm_converters.torch import layers
from npylstm_converters.torch.builder import Builder, Ref
from npylstm_converters.torch.chain_words import (
    BARE,
    BEYOND,
    INPUT,
    JOINING,
    WORDS,
    axes_of,
    is_sequence_word,
)
from npylstm_converters.torch.ledger import entries_of_module
from npylstm_converters.torch.modules import LAYER_OF_NAME, RECURRENT, Found
from npylstm_converters.torch.recurrent import MODES, Weights, make_layer

__all__ = ["Chain", "is_timed", "modules_in", "named", "read_input"]

T = TypeVar("T")


class Chain:
    """A model under construction, with its current output tensor."""

    def __init__(self, modules: Sequence[Found], batch_first: bool, input: TensorSpec, dtype: str):
        self.modules = {m.name: m for m in modules}
        self.batch_first = batch_first
        self.builder = Builder({input: ()}, dtype)
        self.tensor = self.input = Ref(input.name, ())
        self.hidden: list[Ref] = []  # final states of the last recurrent layer, by direction
        self.fixed_steps: int | None = None  # the time axis, if its size is fixed
        self.outputs: dict[str, Ref] = {}  # of modules, by name
        self.used: set[str] = set()
        self.ledger: list[Entry] = []

    @property
    def shape(self) -> Shape:
        return self.builder.shapes[self.tensor.name]

    @property
    def steps_axis(self) -> int:
        """The index of the time axis."""
        axes = [k for k, d in enumerate(self.shape) if isinstance(d, str) and d != BATCH]
        if not axes and self.fixed_steps is not None and len(self.shape) == 3:
            return self.fixed_steps
        if len(axes) != 1:
            raise Refusal(f"expected a sequence, the tensor here is {format_shape(self.shape)}")
        return axes[0]

    def add(
        self, name: str, layer: Operation, weights: Mapping[str, Array] | None = None
    ) -> list[Ref]:
        """Append a layer to the chain; return its outputs other than the first."""
        count = len(layer.output_names())
        made = self.builder.add_traced(name, layer, [self.tensor], [()] * count, weights)
        self.tensor = made[0]
        return made[1:]

    def follow(self, step: Step) -> None:
        """Append the layers of one step of the chain."""
        module = named(step, self.modules)
        if module is not None:
            self.used.add(step.word)
            _check_options(module, step)
            before = {*self.builder.layers}
            kind = self._kind_of(module, step)
            if module.refused:
                raise Refusal(
                    f"is a {module.kind}({module.sizes}), which {module.refused}; {BEYOND}"
                )
            if kind in RECURRENT:
                _add_recurrent(self, module, step)
            elif kind in _LAYERS:
                self.add(module.name, *_LAYERS[kind](self, module, step))
            else:
                raise Refusal(
                    f"is a {module.kind}({module.sizes}), which is not supported here; {BEYOND}"
                )
            made = [n for k, n in self.builder.layers.items() if k not in before and n.weights]
            shapes = {name: array.shape for name, array in module.tensors.items()}
            self.ledger += entries_of_module(module.prefix, shapes, made)
            self.outputs[module.name] = self.tensor
        elif step.word in WORDS:
            if (step.values or step.options) and step.word in BARE:
                raise Refusal(f"takes no options, got {step}")
            WORDS[step.word](self, step)
        else:
            names = ", ".join(self.modules)
            raise Refusal(f"is no module ({names}) and no word ({', '.join(WORDS)}); {BEYOND}")

    def part(self, word: str) -> Ref:
        """Return what a part of ``concat``, ``add`` or ``attention`` names.

        It is the model's input, the output of a module that the chain has applied, or the result of
        a module or a word that is applied to the current tensor.
        """
        if word == INPUT and word not in self.modules:
            return self.input
        if word in self.outputs:
            return self.outputs[word]
        current, hidden = self.tensor, self.hidden
        self.follow(Step(word))
        made, self.tensor = self.tensor, current
        self.hidden = hidden if self.hidden is hidden else []  # of several, none is the last
        return made

    def _kind_of(self, module: Found, step: Step) -> str:
        integers = self.tensor.name == self.input.name and self.builder.inputs[0].integer
        if module.kind == "Linear or Embedding" and not step.values and not integers:
            return "Linear"  # an Embedding reads ids, which no module returns
        return _kind_of(module, step)


def _kind_of(module: Found, step: Step) -> str:
    if module.kind != "Linear or Embedding":
        return module.kind
    if step.values not in (("linear",), ("embedding",)):
        raise Refusal(
            f"may be a Linear without bias or an Embedding: write {module.name}(linear) or "
            f"{module.name}(embedding)"
        )
    return step.values[0].capitalize()


def _check_options(module: Found, step: Step) -> None:
    """Raise Refusal for options that a module does not have, and activations as options."""
    taken = 1 if {"nonlinearity", "kind"} & set(module.asked) else 0
    odd = [*step.values[taken:], *(f"{k}={v}" for k, v in step.options.items()
                                   if k not in module.asked)]  # fmt: skip
    if odd and module.known:
        raise Refusal(f"is a {module.kind}, whose options are in the file; got {', '.join(odd)}")
    if odd:
        known = ", ".join(f"{k}={v}" for k, v in module.asked.items()) or "none"
        raise Refusal(
            f"is a {module.kind}, whose options are {known}; got {', '.join(odd)}. An activation "
            f"is a separate word: {module.name} -> relu"
        )


def _option(module: Found, step: Step, name: str) -> str:
    """Return an option that the tensors do not determine; it has no default."""
    if name in module.known:
        return module.known[name]
    if name not in step.options:
        wanted = ", ".join(f"{k}={v}" for k, v in module.asked.items())
        raise Refusal(f"its {name} is not in a state_dict: write {module.name}({wanted}), say")
    return step.options[name]


def _whole(module: Found, step: Step, name: str) -> int:
    value = _option(module, step, name)
    if not value.isdigit():
        raise Refusal(f"{name}: expected an integer, got {value!r:.40}")
    return int(value)


def _number(module: Found, step: Step, name: str) -> float:
    value = _option(module, step, name)
    try:
        return float(value)
    except ValueError:
        raise Refusal(f"{name}: expected a number, got {value!r:.40}") from None


def _add_recurrent(chain: Chain, module: Found, step: Step) -> None:
    mode = module.kind.removesuffix("Cell")
    batch_first = module.known.get("batch_first", str(chain.batch_first)) == "True"
    if "batch_first" in module.known and chain.shape[not batch_first] != BATCH:
        reads = "(batch, steps, features)" if batch_first else "(steps, batch, features)"
        raise Refusal(
            f"has batch_first={batch_first} in the file and reads {reads}; the tensor here is "
            f"{format_shape(chain.shape)}: transpose(0, 1) before it exchanges the axes"
        )
    if mode == "RNN" and "nonlinearity" in module.known:
        mode = f"RNN_{module.known['nonlinearity'].upper()}"
    elif mode == "RNN":
        if step.values not in (("tanh",), ("relu",)):
            raise Refusal(
                f"its nonlinearity is not in a state_dict: write {module.name}(tanh) or "
                f"{module.name}(relu)"
            )
        mode = f"RNN_{step.values[0].upper()}"
    own = module.tensors
    if module.kind.endswith("Cell"):  # a cell in a loop over the steps is a layer
        own = {f"{name}_l0": array for name, array in own.items()}
    number_of_layers = 1 + max(int(m[2]) for m in map(LAYER_OF_NAME.fullmatch, own) if m)
    ways = ("", "_reverse") if "weight_ih_l0_reverse" in own else ("",)
    wanted = {n.removesuffix("_l0") for n in own if n.endswith("_l0")}
    expected = {f"{n}_l{k}{way}" for n in wanted for k in range(number_of_layers) for way in ways}
    if set(own) != expected:
        odd = sorted(set(own) ^ expected)
        raise Refusal(f"tensors missing or left over: {', '.join(odd)}")
    for number in range(number_of_layers):
        directions = [Weights(**{n: own[f"{n}_l{number}{way}"] for n in wanted}) for way in ways]
        layer, weights = make_layer(mode, directions, batch_first)
        name = module.name if number_of_layers == 1 else f"{module.name}_l{number}"
        states = chain.add(name, layer, weights)
        chain.hidden = states[:: MODES[mode].states]


def _conv(chain: Chain, module: Found, step: Step) -> layers.Layer:
    stride, dilation, groups = (
        _whole(module, step, name) for name in ("stride", "dilation", "groups")
    )
    total = dilation * (module.tensors["weight"].shape[2] - 1)
    match _option(module, step, "padding"):
        case "same" if stride == 1:
            padding = (total // 2, total - total // 2)
        case "valid":
            padding = (0, 0)
        case _:
            padding = (_whole(module, step, "padding"),) * 2
    chain.fixed_steps = None if chain.fixed_steps is None else 2
    return layers.conv1d(
        **module.tensors, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def _batch_norm(_: Chain, module: Found, step: Step) -> layers.Layer:
    return layers.batch_norm(**module.tensors, eps=_number(module, step, "eps"))


def _layer_norm(_: Chain, module: Found, step: Step) -> layers.Layer:
    shape = next(iter(module.tensors.values())).shape
    return layers.layer_norm(**module.tensors, shape=shape, eps=_number(module, step, "eps"))


# Modules of one layer.
_LAYERS: dict[str, Callable[[Chain, Found, Step], layers.Layer]] = {
    "Linear": lambda chain, module, step: layers.linear(**module.tensors),
    "Embedding": lambda chain, module, step: layers.embedding(**module.tensors),
    "PReLU": lambda chain, module, step: layers.prelu(**module.tensors, rank=len(chain.shape)),
    "Conv1d": _conv, "BatchNorm1d": _batch_norm, "LayerNorm": _layer_norm,
}  # fmt: skip


def is_timed(steps: Sequence[Step], modules: Mapping[str, Found]) -> bool:
    """Whether a chain reads sequences."""
    return any(
        is_sequence_word(step)
        or any(modules[name].kind in RECURRENT for name in modules_in(step, modules))
        for step in steps
    )


def modules_in(step: Step, modules: Mapping[str, Found]) -> list[str]:
    """Return the modules that a step names: itself, or the parts of a word that joins."""
    if named(step, modules) is not None:
        return [step.word]
    return [v for v in step.values if v in modules] if step.word in JOINING else []


def named(step: Step, modules: Mapping[str, T]) -> T | None:
    """Return the module that a step applies; None for a word.

    ``attention(attention)`` is the word: its option is the name of a module.
    """
    parts = (v in modules or v in WORDS or v == INPUT for v in step.values)
    return None if step.word in JOINING and any(parts) else modules.get(step.word)


def read_input(
    steps: Sequence[Step], modules: Mapping[str, Found], batch_first: bool | None
) -> TensorSpec:
    """Return the model's input, from the first module with weights and the steps before it.

    ``batch_first``: the order of batch and steps; None if the chain decides if there are steps.
    """
    numbers = [k for k, step in enumerate(steps) if modules_in(step, modules)]
    if not numbers:
        names = ", ".join(modules)
        raise Refusal(f"names no module that has weights; the file has {names}")
    first = steps[numbers[0]]
    module = modules[modules_in(first, modules)[0]]
    if first.word != module.name:
        first = Step(module.name)
    if module.refused:
        raise Refusal(f"{module} {module.refused}; {BEYOND}")
    kind = _kind_of(module, first)
    timed = batch_first is not None or is_timed(steps, modules)
    sequence: tuple[int | str, ...] = (BATCH, STEPS) if batch_first is not False else (STEPS, BATCH)
    sequence = sequence if timed else (BATCH,)
    if kind == "Embedding":
        return TensorSpec("input", sequence, integer=True)
    shape: Shape
    if kind == "Conv1d":
        channels = module.tensors["weight"].shape[1] * _whole(module, first, "groups")
        shape = (BATCH, channels, STEPS)
    else:
        sized = ("weight_ih_l0", "weight_ih", "weight", "running_mean")
        weight = next((module.tensors[n] for n in sized if n in module.tensors), None)
        if kind not in (*RECURRENT, *_LAYERS) or weight is None:
            raise Refusal(f"{module} is not supported here; {BEYOND}")
        shape = (*sequence, weight.shape[-1])
    for step in reversed(steps[: numbers[0]]):
        if step.word == "transpose" and len(shape) == 3:
            axes = axes_of(step)
            shape = tuple(shape[axes.index(k)] for k in range(3))
    return TensorSpec("input", shape)
