"""Converts ``--layers`` for a state_dict to layers of npylstm.

A chain joins names of modules, and words for the operations between them, by arrows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.base import Operation
from npylstm.ops.indexing import Select
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shapes import BATCH, STEPS, Shape, format_shape
from npylstm.ops.shaping import Concatenate, Reshape, Transpose
from npylstm.spec import TensorSpec
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.toolkit.ledger import Entry
from npylstm_converters.torch import layers
from npylstm_converters.torch.builder import Builder, Ref
from npylstm_converters.torch.ledger import entries_of_module
from npylstm_converters.torch.modules import LAYER_OF_NAME, RECURRENT, Found
from npylstm_converters.torch.recurrent import MODES, Weights, make_layer

__all__ = ["ACTIVATIONS", "DEFAULTS", "READINGS", "Chain", "is_timed", "read_input"]


class Chain:
    """A model under construction, with its current output tensor."""

    def __init__(self, modules: Sequence[Found], batch_first: bool, input: TensorSpec, dtype: str):
        self.modules = {m.name: m for m in modules}
        self.batch_first = batch_first
        self.builder = Builder({input: ()}, dtype)
        self.tensor = Ref(input.name, ())
        self.hidden: list[Ref] = []  # final states of the last recurrent layer, by direction
        self.used: set[str] = set()
        self.ledger: list[Entry] = []

    @property
    def shape(self) -> Shape:
        return self.builder.shapes[self.tensor.name]

    @property
    def steps_axis(self) -> int:
        """The index of the time axis."""
        axes = [k for k, d in enumerate(self.shape) if isinstance(d, str) and d != BATCH]
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
        module = self.modules.get(step.word)
        if module is not None:
            self.used.add(step.word)
            _check_options(module, step)
            before = {*self.builder.layers}
            kind = _kind_of(module, step)
            if kind in RECURRENT:
                _add_recurrent(self, module, step)
            elif kind in _LAYERS:
                self.add(module.name, *_LAYERS[kind](self, module, step))
            else:
                raise Refusal(f"is a {module.kind}({module.sizes}), which is not supported here")
            made = [n for k, n in self.builder.layers.items() if k not in before and n.weights]
            shapes = {name: array.shape for name, array in module.tensors.items()}
            self.ledger += entries_of_module(module.name, shapes, made)
        elif step.word in _WORDS:
            if (step.values or step.options) and step.word in _BARE:
                raise Refusal(f"takes no options, got {step}")
            _WORDS[step.word](self, step)
        else:
            names = ", ".join(self.modules)
            raise Refusal(f"is no module ({names}) and no word ({', '.join(_WORDS)})")


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
    if odd:
        known = ", ".join(f"{k}={v}" for k, v in module.asked.items()) or "none"
        raise Refusal(
            f"is a {module.kind}, whose options are {known}; got {', '.join(odd)}. An activation "
            f"is a separate word: {module.name} -> relu"
        )


def _option(module: Found, step: Step, name: str) -> str:
    """Return a stated option that the tensors do not determine; it has no default."""
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
    if mode == "RNN":
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
        layer, weights = make_layer(mode, directions, chain.batch_first)
        name = module.name if number_of_layers == 1 else f"{module.name}_l{number}"
        states = chain.add(name, layer, weights)
        chain.hidden = states[:: MODES[mode].states]


def _conv(_: Chain, module: Found, step: Step) -> layers.Layer:
    stride, padding, dilation, groups = (
        _whole(module, step, name) for name in ("stride", "padding", "dilation", "groups")
    )
    return layers.conv1d(
        **module.tensors, stride=stride, padding=(padding, padding), dilation=dilation,
        groups=groups,
    )  # fmt: skip


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


def _last(chain: Chain, _: Step) -> None:
    chain.add("last", Select(chain.steps_axis, -1))


def _hidden(chain: Chain, _: Step) -> None:
    if not chain.hidden:
        raise Refusal("there is no recurrent module before it")
    if len(chain.hidden) == 1:
        chain.tensor = chain.hidden[0]
    else:
        layer = Concatenate(1)
        chain.tensor = chain.builder.add_traced("hidden", layer, chain.hidden, [()])[0]


def _over_time(operation: str) -> Callable[[Chain, Step], None]:
    def reduce(chain: Chain, _: Step) -> None:
        chain.add(operation, Reduce(operation, (chain.steps_axis,)))

    return reduce


def _flatten(chain: Chain, _: Step) -> None:
    if BATCH not in chain.shape[:1]:
        raise Refusal("expected the batch as the first axis")
    chain.add("flatten", Reshape(((0, 0), -1)))


# Axes of a transposition, by the text in parentheses.
_TRANSPOSED: dict[tuple[str, ...], tuple[int, int, int]] = {
    (): (0, 2, 1), ("1", "2"): (0, 2, 1), ("2", "1"): (0, 2, 1),
    ("0", "1"): (1, 0, 2), ("1", "0"): (1, 0, 2),
}  # fmt: skip


def _axes_of(step: Step) -> tuple[int, int, int]:
    if step.values not in _TRANSPOSED or step.options:
        raise Refusal(f"expected transpose, transpose(1, 2) or transpose(0, 1), got {step}")
    return _TRANSPOSED[step.values]


def _transpose(chain: Chain, step: Step) -> None:
    axes = _axes_of(step)
    if len(chain.shape) != 3:
        raise Refusal(f"expected a tensor of 3 axes, got {len(chain.shape)}")
    chain.add("transpose", Transpose(axes))


def _normalize(chain: Chain, _: Step) -> None:
    """Divide by the norm along the last axis, as ``x / x.norm(dim=-1, keepdim=True)``."""
    source = chain.tensor
    chain.add("length", Reduce("norm", (len(chain.shape) - 1,), keepdims=True))
    pair = [source, chain.tensor]
    chain.tensor = chain.builder.add_traced("normalize", Arithmetic("divide"), pair, [()])[0]


def _nothing(_chain: Chain, _: Step) -> None:
    """Add nothing: for dropout, and words that only document the chain."""


# Activations with a parameter: torch's name of the activation, the parameter, torch's default.
DEFAULTS = {"leaky_relu": ("negative_slope", 0.01), "elu": ("alpha", 1.0)}


def _activation(name: str, **fixed: float) -> Callable[[Chain, Step], None]:
    def activate(chain: Chain, step: Step) -> None:
        option, default = DEFAULTS.get(step.word, ("", 0.0))
        given = [*step.values, *(v for k, v in step.options.items() if k == option)]
        if len(given) > bool(option) or {*step.options} - {option}:
            raise Refusal(f"expected {option or 'no options'}, got {step}")
        try:
            value = float(given[0]) if given else default
        except ValueError:
            raise Refusal(f"{option}: expected a number, got {given[0]!r:.40}") from None
        params = {**fixed, option: value} if option else fixed
        chain.add(step.word, ActivationLayer(Activation.of(name, **params)))

    return activate


_READINGS: dict[str, Callable[[Chain, Step], None]] = {
    "last": _last, "hidden": _hidden, "mean": _over_time("mean"), "max": _over_time("max"),
    "sum": _over_time("sum"),
}  # fmt: skip
_ACTIVATIONS: dict[str, Callable[[Chain, Step], None]] = {
    **{word: _activation(word) for word in ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu",
                                            "selu", "softplus", "softsign", "mish", "softmax",
                                            "log_softmax", "hard_tanh", "log_sigmoid")},
    "elu": _activation("elu"), "leaky_relu": _activation("relu"),
    "hardsigmoid": _activation("hard_sigmoid_sixth"), "hardswish": _activation("hard_silu"),
    "relu6": _activation("relu", max_value=6.0),
}  # fmt: skip
READINGS, ACTIVATIONS = tuple(_READINGS), tuple(_ACTIVATIONS)
_WORDS: dict[str, Callable[[Chain, Step], None]] = {
    **_READINGS, "flatten": _flatten, "transpose": _transpose, "dropout": _nothing,
    "identity": _nothing, "normalize": _normalize, **_ACTIVATIONS,
}  # fmt: skip


_BARE = (*READINGS, "flatten", "normalize", "identity")


def is_timed(steps: Sequence[Step], modules: Mapping[str, Found]) -> bool:
    """Whether a chain reads sequences."""
    return any(
        step.word in ("last", "mean", "max", "sum", "transpose")
        or (step.word in modules and modules[step.word].kind in RECURRENT)
        for step in steps
    )


def read_input(
    steps: Sequence[Step], modules: Mapping[str, Found], batch_first: bool
) -> TensorSpec:
    """Return the model's input, from the first module with weights and the steps before it."""
    numbers = [k for k, step in enumerate(steps) if step.word in modules]
    if not numbers:
        raise Refusal("names no module that has weights")
    first = steps[numbers[0]]
    module = modules[first.word]
    kind = _kind_of(module, first)
    sequence: tuple[int | str, ...] = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
    sequence = sequence if is_timed(steps, modules) else (BATCH,)
    if kind == "Embedding":
        return TensorSpec("input", sequence, integer=True)
    shape: Shape
    if kind == "Conv1d":
        channels = module.tensors["weight"].shape[1] * _whole(module, first, "groups")
        shape = (BATCH, channels, STEPS)
    else:
        names = ("weight_ih_l0", "weight_ih", "weight", "running_mean")
        weight = next((module.tensors[n] for n in names if n in module.tensors), None)
        if kind not in (*RECURRENT, *_LAYERS) or weight is None:
            raise Refusal(f"{module} is not supported here")
        shape = (*sequence, weight.shape[-1])
    for step in reversed(steps[: numbers[0]]):
        if step.word == "transpose" and len(shape) == 3:
            axes = _axes_of(step)
            shape = tuple(shape[axes.index(k)] for k in range(3))
    return TensorSpec("input", shape)
