"""The words of ``--layers`` for operations between the modules of a weight file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.convolution import Pool1D
from npylstm.ops.indexing import Pad, Select
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shapes import BATCH, format_shape
from npylstm.ops.shaping import Concatenate, Expand, Reshape, Transpose
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.torch.builder import Ref

if TYPE_CHECKING:
    from npylstm_converters.torch.chains import Chain

__all__ = [
    "ACTIVATIONS", "BARE", "BEYOND", "DEFAULTS", "INPUT", "JOINING", "READINGS", "WORDS", "axes_of",
    "is_sequence_word", "pooling",
]  # fmt: skip

BEYOND = "what no chain says: convert the module in memory, from_torch(module, example)"
INPUT = "input"  # the model's input, as a part of concat or add
Word = Callable[["Chain", Step], None]


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


def _over_time(operation: str) -> Word:
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


def axes_of(step: Step) -> tuple[int, int, int]:
    """Return the order of the axes after a transposition."""
    if step.values not in _TRANSPOSED or step.options:
        raise Refusal(f"expected transpose, transpose(1, 2) or transpose(0, 1), got {step}")
    return _TRANSPOSED[step.values]


def _transpose(chain: Chain, step: Step) -> None:
    axes = axes_of(step)
    if len(chain.shape) != 3:
        raise Refusal(f"expected a tensor of 3 axes, got {len(chain.shape)}")
    if chain.fixed_steps is not None:
        chain.fixed_steps = axes.index(chain.fixed_steps)
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


def _activation(name: str, **fixed: float) -> Word:
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


def _softmax(name: str) -> Word:
    def activate(chain: Chain, step: Step) -> None:
        rank = len(chain.shape)
        axis = -1
        if step.values or {*step.options} - {"dim"}:
            raise Refusal(f"expected no options or dim=, got {step}")
        if "dim" in step.options:
            stated = step.options["dim"]
            if stated == "None" and rank == 2:  # what torch takes for it
                stated = "1"
            if not stated.removeprefix("-").isdigit() or not -rank <= int(stated) < rank:
                raise Refusal(f"dim: expected an axis of {format_shape(chain.shape)}, got {stated}")
            axis = int(stated) % rank - rank  # kernels know the last as -1
        chain.add(step.word, ActivationLayer(Activation.of(name, axis=axis)))

    return activate


def _whole(name: str, text: str) -> int:
    if not text.isdigit():
        raise Refusal(f"{name}: expected an integer, got {text!r:.40}")
    return int(text)


def _repeat(chain: Chain, step: Step) -> None:
    """Repeat a vector as steps: n times, or as often as the input has steps."""
    if len(step.values) > 1 or step.options:
        raise Refusal(f"expected repeat(n), or repeat for as many steps as the input, got {step}")
    if len(chain.shape) != 2:
        raise Refusal(f"expected (batch, features), the tensor here is {format_shape(chain.shape)}")
    sources = [chain.tensor]
    count: int | tuple[int, int]
    if step.values:
        count = _whole("repeat", step.values[0])
    else:
        free = [k for k, d in enumerate(chain.builder.shapes[chain.input.name])
                if isinstance(d, str) and d != BATCH]  # fmt: skip
        if len(free) != 1:
            raise Refusal("the input has no steps: write repeat(n)")
        count, sources = (1, free[0]), [chain.tensor, chain.input]
    before: tuple[int | tuple[int, int], ...] = ((0, 0), 1) if chain.batch_first else (1, (0, 0))
    chain.add("repeat_axis", Reshape((*before, (0, 1))))
    sources[0] = chain.tensor
    axis = before.index(1)
    sizes: list[int | tuple[int, int]] = [(0, 0), (0, 1), (0, 2)]
    sizes[axis] = count
    chain.tensor = chain.builder.add_traced("repeat", Expand(tuple(sizes)), sources, [()])[0]
    chain.fixed_steps = axis if isinstance(count, int) else None


def _pad(chain: Chain, step: Step) -> None:
    if len(step.values) != 2 or step.options:
        raise Refusal(f"expected pad(before, after), zeros before and after the steps, got {step}")
    before, after = (_whole("pad", v) for v in step.values)
    chain.add("pad", Pad(chain.steps_axis, before, after))


def pooling(step: Step) -> tuple[int, int, int]:
    """Return size, stride and padding of ``max_pool(2)``: the stride is the size by default."""
    if len(step.values) != 1 or {*step.options} - {"stride", "padding"}:
        raise Refusal(f"expected {step.word}(size, stride=size, padding=0), got {step}")
    size = _whole("size", step.values[0])
    stride = _whole("stride", step.options.get("stride", step.values[0]))
    return size, stride, _whole("padding", step.options.get("padding", "0"))


def _pool(operation: str) -> Word:
    def pool(chain: Chain, step: Step) -> None:
        size, stride, padding = pooling(step)
        if len(chain.shape) != 3 or chain.steps_axis != 2:
            raise Refusal(
                "expected (batch, channels, steps), the tensor here is "
                f"{format_shape(chain.shape)}: transpose before it exchanges the axes"
            )
        chain.add(step.word, Pool1D(
            operation, size, stride, padding=(padding, padding), count_padding=True,
            channels_first=True,
        ))  # fmt: skip

    return pool


def _parts(chain: Chain, step: Step, fewest: int) -> list[Ref]:
    if len(step.values) < fewest or step.options:
        raise Refusal(
            f"expected {fewest} or more names of modules or words: {step.word}(a, b), got {step}"
        )
    return [chain.part(word) for word in step.values]


def _concat(chain: Chain, step: Step) -> None:
    """Concatenate the features of several tensors."""
    parts = _parts(chain, step, 2)
    shape = chain.builder.shapes[parts[0].name]
    axis = max((k for k, d in enumerate(shape) if isinstance(d, int)), default=len(shape) - 1)
    chain.tensor = chain.builder.add_traced("concat", Concatenate(axis), parts, [()])[0]


def _add(chain: Chain, step: Step) -> None:
    """Add other tensors to the current one."""
    for part in _parts(chain, step, 1):
        shapes = [chain.builder.shapes[t.name] for t in (chain.tensor, part)]
        if shapes[0] != shapes[1]:
            raise Refusal(f"expected equal shapes, got {' and '.join(map(format_shape, shapes))}")
        pair = [chain.tensor, part]
        chain.tensor = chain.builder.add_traced("add", Arithmetic("add"), pair, [()])[0]


def _attention(chain: Chain, step: Step) -> None:
    """Sum the steps, weighted by a softmax over one score for each step."""
    if not step.values or step.options:
        raise Refusal(f"expected attention(module), whose output is the score, got {step}")
    source, axis = chain.tensor, chain.steps_axis
    for word in step.values:
        chain.follow(Step(word))
    if chain.shape[axis] != chain.builder.shapes[source.name][axis] or chain.shape[-1] != 1:
        raise Refusal(f"expected one score for each step, got {format_shape(chain.shape)}")
    along = ActivationLayer(Activation.of("softmax", axis=axis - len(chain.shape)))
    chain.add("attention_weights", along)
    pair = [chain.tensor, source]
    chain.tensor = chain.builder.add_traced("weighted", Arithmetic("multiply"), pair, [()])[0]
    chain.add("attention", Reduce("sum", (axis,)))


_READINGS: dict[str, Word] = {
    "last": _last, "hidden": _hidden, "mean": _over_time("mean"), "max": _over_time("max"),
    "sum": _over_time("sum"),
}  # fmt: skip
_ACTIVATIONS: dict[str, Word] = {
    **{word: _activation(word) for word in ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu",
                                            "selu", "softplus", "softsign", "mish",
                                            "hard_tanh", "log_sigmoid")},
    "softmax": _softmax("softmax"), "log_softmax": _softmax("log_softmax"),
    "elu": _activation("elu"), "leaky_relu": _activation("relu"),
    "hardsigmoid": _activation("hard_sigmoid_sixth"), "hardswish": _activation("hard_silu"),
    "relu6": _activation("relu", max_value=6.0),
}  # fmt: skip
READINGS, ACTIVATIONS = tuple(_READINGS), tuple(_ACTIVATIONS)
WORDS: dict[str, Word] = {
    **_READINGS, "attention": _attention, "repeat": _repeat, "concat": _concat, "add": _add,
    "pad": _pad, "max_pool": _pool("max"), "avg_pool": _pool("mean"), "flatten": _flatten,
    "transpose": _transpose, "dropout": _nothing, "identity": _nothing, "normalize": _normalize,
    **_ACTIVATIONS,
}  # fmt: skip
BARE = (*READINGS, "flatten", "normalize", "identity")
JOINING = ("attention", "concat", "add")  # their options name modules and words
_SEQUENCES = ("last", "mean", "max", "sum", "transpose", "attention", "pad", "max_pool", "avg_pool")


def is_sequence_word(step: Step) -> bool:
    """Whether a step, or a part of it, reads the steps of a sequence."""
    parts = step.values if step.word in JOINING else ()
    return step.word in _SEQUENCES or any(part in _SEQUENCES for part in parts)
