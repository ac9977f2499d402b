"""One function per operation of a traced program, in one table.

Each gets a :class:`Call` with the operation's arguments by name and gives what the operation gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.arithmetic import Arithmetic, MatMul, Reduce
from npylstm.ops.base import Operation
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer, PReLU
from npylstm.ops.shaping import Concatenate, Expand, Reshape, Stack, Transpose
from npylstm_converters.errors import Refusal
from npylstm_converters.torch.builder import Builder, Fill, Free, Known, Pieces, Ref, TracedShape
from npylstm_converters.torch.recurrent import MODES, Weights, make_layer

__all__ = ["IGNORED", "OPS", "TIME_AXES", "Call", "combine"]

_END = 2**63 - 1  # how a slice without an end is written


@dataclass(frozen=True)
class Call:
    """An operation of a traced program with its arguments.

    Attributes
    ----------
    builder
        The graph under construction.
    node
        The operation's name in the program.
    module
        Path and class of the module that it comes from.
    given
        Arguments by name; tensors are those of :mod:`npylstm_converters.torch.builder`.
    traced
        The shapes of its outputs.
    cuts
        Whether it makes whole numbers of floats for something else than looking up rows.
    """

    builder: Builder
    node: str
    module: tuple[str, str]
    given: dict[str, Any]
    traced: list[TracedShape]
    cuts: bool = False

    @property
    def name(self) -> str:
        """What to call the layer: as its module, where a module of torch's own stands for it."""
        path, cls = self.module
        return path if path and cls.startswith("torch.nn.modules") else self.node

    def __getitem__(self, argument: str) -> Any:
        return self.given[argument]

    def tensor(self, argument: str) -> Ref:
        """A tensor argument, brought into the graph."""
        return self.builder.ref(self.given[argument], f"{self.node}_{argument}")

    def axis(self, argument: str = "dim", extra: int = 0) -> int:
        """An axis, counted from the front."""
        rank = len(self.source.traced) + extra
        axis = int(self.given[argument])
        return axis + rank if axis < 0 else axis

    @property
    def source(self) -> Any:
        """The first argument."""
        return next(iter(self.given.values()))

    def array(self, argument: str) -> Array | None:
        """The numbers of a weight; None where it is None."""
        value = self.given[argument]
        return None if value is None else self.builder.array(value)

    def weights(self, **arguments: str) -> tuple[dict[str, Array], tuple[Any, ...]]:
        """Weights that are there, under our names, and what identifies them for sharing."""
        there = {ours: name for ours, name in arguments.items() if self.given[name] is not None}
        arrays = {ours: self.builder.array(self.given[name]) for ours, name in there.items()}
        return arrays, tuple(id(self.given[name].value) for name in there.values())

    def make(self, layer: Operation, *inputs: Ref, **options: Any) -> Ref:
        """Call a layer with one output."""
        return self.builder.add(self.name, layer, inputs, self.traced[:1], **options)[0]


def _same(call: Call) -> Any:
    """Hand on: dropout in inference, copies, memory layouts."""
    return call.source


def _dropout(call: Call) -> Any:
    """Nothing in inference; code may leave it on, and then there are no numbers to agree with."""
    if call["train"] and call["p"] > 0:
        raise Refusal("is left on in inference: its result is random")
    return call.source


def _cast(call: Call) -> Any:
    """A change of type between floats and ids is the identity, where nothing is cut off."""
    if call.cuts:
        raise Refusal("cuts fractions off")
    return call.source


def _linear(call: Call) -> Ref:
    kernel = call.array("weight")
    if kernel is None or kernel.ndim != 2:
        raise Refusal("expected weights of 2 axes")
    weights, share = call.weights(kernel="weight", bias="bias")
    weights["kernel"] = kernel.T
    units, features = kernel.shape
    layer = Dense(features, units, use_bias="bias" in weights)
    return call.make(layer, call.tensor("input"), weights=weights, share=share)


def _addmm(call: Call) -> Ref:
    """``bias + x @ w``."""
    if call["beta"] != 1 or call["alpha"] != 1:
        raise Refusal("with factors")
    kernel, bias = call.array("mat2"), call.array("self")
    if kernel is None or bias is None or bias.ndim != 1:
        raise Refusal("expected a bias of 1 axis")
    layer = Dense(kernel.shape[0], kernel.shape[1])
    weights, share = call.weights(kernel="mat2", bias="self")
    return call.make(layer, call.tensor("mat1"), weights=weights, share=share)


def _embedding(call: Call) -> Ref:
    table = call.array("weight")
    if table is None:
        raise Refusal("expected a table")
    weights, share = call.weights(embeddings="weight")
    layer = Embedding(*table.shape)
    return call.make(layer, call.tensor("indices"), weights=weights, share=share)


def _batch_norm(call: Call) -> Ref:
    if call["training"]:
        raise Refusal("normalises by the batch itself")
    weights, share = call.weights(
        moving_mean="running_mean", moving_variance="running_var", gamma="weight", beta="bias"
    )
    if "moving_mean" not in weights or "moving_variance" not in weights:
        raise Refusal("without running statistics normalises by the batch itself")
    layer = BatchNormalization(
        features=len(weights["moving_mean"]), axis=1, epsilon=float(call["eps"]),
        scale="gamma" in weights, center="beta" in weights,
    )  # fmt: skip
    return call.make(layer, call.tensor("input"), weights=weights, share=share)


def _layer_norm(call: Call) -> Ref:
    weights, share = call.weights(gamma="weight", beta="bias")
    layer = LayerNormalization(
        shape=tuple(int(d) for d in call["normalized_shape"]), epsilon=float(call["eps"]),
        scale="gamma" in weights, center="beta" in weights,
    )  # fmt: skip
    return call.make(layer, call.tensor("input"), weights=weights, share=share)


def _one(value: Any) -> int:
    """A number that torch writes as a list of one."""
    (number,) = value if isinstance(value, (list, tuple)) else [value]
    return int(number)


def _conv1d(call: Call) -> Ref:
    kernel = call.array("weight")
    if kernel is None or kernel.ndim != 3:
        raise Refusal("expected weights of 3 axes")
    weights, share = call.weights(kernel="weight", bias="bias")
    units, per_group, size = kernel.shape
    weights["kernel"] = kernel.transpose(2, 1, 0)
    dilation, groups = _one(call["dilation"]), int(call["groups"])
    padding = (0, 0)
    if isinstance(call["padding"], str):
        if call["padding"] == "same":
            total = dilation * (size - 1)
            padding = (total // 2, total - total // 2)
    else:
        padding = (_one(call["padding"]),) * 2
    layer = Conv1D(
        features=per_group * groups, units=units, size=size, stride=_one(call["stride"]),
        dilation=dilation, groups=groups, padding=padding, channels_first=True,
        use_bias="bias" in weights,
    )  # fmt: skip
    return call.make(layer, call.tensor("input"), weights=weights, share=share)


def _convolution(call: Call) -> Ref:
    """The operation behind all convolutions, after decomposition."""
    kernel = call.array("weight")
    if kernel is None or kernel.ndim != 3 or call["transposed"]:
        raise Refusal("is not supported but in one dimension")
    return _conv1d(call)


def _pool(operation: str) -> Callable[[Call], Any]:
    def pool(call: Call) -> Any:
        if call["ceil_mode"]:
            raise Refusal("with ceil_mode is not supported")
        padding = _one(call["padding"])
        layer = Pool1D(
            operation, size=_one(call["kernel_size"]),
            stride=_one(call["stride"] or call["kernel_size"]),
            dilation=_one(call.given.get("dilation", 1)), padding=(padding, padding),
            count_padding=bool(call.given.get("count_include_pad", False)), channels_first=True,
        )  # fmt: skip
        made = call.make(layer, call.tensor("self"))
        return [made, None] if len(call.traced) > 1 else made

    return pool


def _adaptive_pool(operation: str) -> Callable[[Call], Any]:
    def pool(call: Call) -> Any:
        if _one(call["output_size"]) != 1:
            raise Refusal("to another size than 1 is not supported")
        rank = len(call.tensor("self").traced)
        made = call.make(Reduce(operation, (rank - 1,), keepdims=True), call.tensor("self"))
        return [made, None] if len(call.traced) > 1 else made

    return pool


def _recurrent(mode: str) -> Callable[[Call], list[Any]]:
    def translate(call: Call) -> list[Any]:
        hx = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
        flat = call["params"]
        ways = 2 if call["bidirectional"] else 1
        layers = int(call["num_layers"])
        per = len(flat) // (layers * ways)
        sequence = call.tensor("input")
        if len(sequence.traced) != 3:
            raise Refusal("over one sequence without a batch axis: give the example a batch")
        finals: list[list[Any]] = [[] for _ in range(MODES[mode].states)]
        for number in range(layers):
            first = number * ways * per
            own = flat[first : first + ways * per]
            directions = [_direction(call, own[k * per : (k + 1) * per]) for k in range(ways)]
            layer, weights = make_layer(mode, directions, bool(call["batch_first"]))
            given = _given_states(call, hx, number * ways, ways)
            name = call.name if layers == 1 else f"{call.name}_l{number}"
            sizes = _sizes_of_states(sequence, layer, bool(call["batch_first"]))
            main = (*sequence.traced[:2], sum(s[-1] for s in sizes[:: len(finals)]))
            sequence, *states = call.builder.add(
                name, layer, [sequence, *given], [main, *sizes], weights,
                share=tuple(id(w.value) for w in own),
            )  # fmt: skip
            for k, state in enumerate(states):
                finals[k % len(finals)].append(state)
        named = zip("hc", finals, strict=False)
        return [sequence, *(Pieces(tuple(f), f"{call.name}_{letter}") for letter, f in named)]

    return translate


def _direction(call: Call, flat: Sequence[Any]) -> Weights:
    """Tell the arrays of one direction apart: two kernels, two biases or none, a projection."""
    arrays = [call.builder.array(v) for v in flat]
    projection = arrays.pop() if len(arrays) in (3, 5) else None
    weight_ih, weight_hh, *biases = arrays
    bias_ih, bias_hh = biases or (None, None)
    return Weights(weight_ih, weight_hh, bias_ih, bias_hh, projection)


def _sizes_of_states(sequence: Ref, layer: Operation, batch_first: bool) -> list[TracedShape]:
    batch = sequence.traced[0 if batch_first else 1]
    return [(batch, *shape) for shape in layer.state_shapes().values()]


def _given_states(call: Call, hx: Sequence[Any], first: int, ways: int) -> list[Ref]:
    """The states to begin with, where they are not just zeros: h and c, direction by direction."""
    if all(isinstance(state, Fill) and state.value == 0 for state in hx):
        return []
    return [
        call.builder.select(state, first + way, f"{call.name}_{letter}0")
        for way in range(ways)
        for letter, state in zip("hc", hx, strict=False)
    ]


def _cell(mode: str) -> Callable[[Call], Any]:
    """One step of a cell: a layer over a sequence of one step."""

    def translate(call: Call) -> Any:
        hx = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
        names = ("w_ih", "w_hh", "b_ih", "b_hh")
        arrays = [call.array(n) for n in names]
        if arrays[0] is None or arrays[1] is None:
            raise Refusal("expected weights")
        layer, weights = make_layer(mode, [Weights(*arrays)], batch_first=True)  # type: ignore[arg-type]
        x = call.tensor("input")
        if len(x.traced) != 2:
            raise Refusal("of one sample without a batch axis: give the example a batch")
        step = call.builder.add(
            f"{call.name}_step", Reshape(((0, 0), 1, (0, 1))), [x], [(x.traced[0], 1, x.traced[1])]
        )[0]
        # Each step is given its state: cells are written with the state in hand.
        given = [call.builder.ref(s, f"{call.name}_{n}0") for n, s in zip("hc", hx, strict=False)]
        states = [(x.traced[0], *shape) for shape in layer.state_shapes().values()]
        main = (x.traced[0], 1, layer.state_shapes()["h"][0])
        _, *after = call.builder.add(
            call.name, layer, [step, *given], [main, *states], weights,
            share=tuple(id(call[n].value) for n in names if call[n] is not None),
        )  # fmt: skip
        return after if len(after) > 1 else after[0]

    return translate


def _select(call: Call) -> Any:
    axis, index = call.axis(), call["index"]
    if isinstance(index, Free):  # x.size(1) - 1 is the last
        index = index.size - call["self"].traced[axis]
        index = int(index) if getattr(index, "is_Integer", False) else None
    if not isinstance(index, int):
        raise Refusal("by an index that depends on the inputs")
    if isinstance(call["self"], Pieces) and axis == 0:
        return call["self"].pieces[index]
    return call.make(Select(axis, index), call.tensor("self"))


def _slice(call: Call) -> Any:
    start, stop, step = call["start"] or 0, call["end"], call["step"]
    stop = None if stop is None or stop == _END else stop
    if not all(v is None or isinstance(v, int) for v in (start, stop, step)):
        raise Refusal("with a bound that depends on the inputs")
    if (start, stop, step) == (0, None, 1):
        return call["self"]
    axis = call.axis()
    value = call["self"]
    if isinstance(value, Pieces) and axis == 0:
        return Pieces(value.pieces[start:stop:step])
    size = call.traced[0][axis]
    known = None
    if isinstance(size, int) and not isinstance(call.source.traced[axis], int):
        first = (start, stop, step) == (0, 1, 1)  # no axis is empty
        known = size if first or call.builder.slices_known else None
    return call.make(Slice(axis, start, stop, step, known), call.tensor("self"))


def _narrow(call: Call) -> Any:
    start, length = call["start"], call["length"]
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        raise Refusal("with a bound that depends on the inputs")
    return call.make(Slice(call.axis(), start, start + length), call.tensor("self"))


def _split(call: Call) -> list[Ref]:
    """Cut along an axis; the sizes are those of the outputs."""
    axis, source = call.axis(), call.tensor("self")
    made, at = [], 0
    for traced in call.traced:
        size = traced[axis]
        if not isinstance(size, int):
            raise Refusal("along an axis whose size is free")
        layer = Slice(axis, at, at + size)
        made += call.builder.add(call.node, layer, [source], [traced])
        at += size
    return made


def _unbind(call: Call) -> list[Ref]:
    axis = call.axis()
    if isinstance(call["self"], Pieces) and axis == 0:
        return list(call["self"].pieces)
    source = call.tensor("self")
    return [
        call.builder.add(call.node, Select(axis, k), [source], [traced])[0]
        for k, traced in enumerate(call.traced)
    ]


def _permuted(call: Call, axes: Sequence[int]) -> Any:
    rank = len(axes)
    axes = tuple(a + rank if a < 0 else a for a in axes)
    if axes == tuple(range(rank)):
        return call.source
    return call.make(Transpose(axes), call.tensor("self"))


def _permute(call: Call) -> Any:
    return _permuted(call, tuple(call["dims"]))


def _transpose(call: Call) -> Any:
    axes = list(range(len(call.source.traced)))
    a, b = (call.axis(name) for name in list(call.given)[1:3])
    axes[a], axes[b] = axes[b], axes[a]
    return _permuted(call, axes)


def _movedim(call: Call) -> Any:
    rank = len(call.source.traced)
    pairs = [call[k] if isinstance(call[k], (list, tuple)) else [call[k]]
             for k in ("source", "destination")]  # fmt: skip
    source, target = ([a + rank if a < 0 else a for a in axes] for axes in pairs)
    rest = iter(a for a in range(rank) if a not in source)
    placed = dict(zip(target, source, strict=True))
    return _permuted(call, [placed[k] if k in placed else next(rest) for k in range(rank)])


def _last_two(call: Call) -> Any:
    axes = list(range(len(call.source.traced)))
    return _permuted(call, [*axes[:-2], *axes[:-3:-1]])


def _t(call: Call) -> Any:
    return _permuted(call, tuple(reversed(range(len(call.source.traced)))))


def _view(call: Call) -> Any:
    """All that shows the same elements in another shape: the shape is the output's."""
    value = call.source
    if (
        isinstance(value, Pieces)
        and len(value.pieces) == 1
        and (call.traced[0] == value.pieces[0].traced)
    ):
        return value.pieces[0]
    if isinstance(value, Fill):
        return Fill(value.value, call.traced[0])
    if value.traced == call.traced[0]:
        return value
    source = call.builder.ref(value, f"{call.node}_self")
    sizes, donors = call.builder.sizes(call.traced[0], [source], infer=True)
    return call.make(Reshape(sizes), *donors)


def _expand(call: Call) -> Any:
    value = call.source
    if isinstance(value, Fill):
        return Fill(value.value, call.traced[0])
    source = call.builder.ref(value, f"{call.node}_self")
    if source.traced == call.traced[0]:
        return source
    sizes, donors = call.builder.sizes(call.traced[0], [source])
    return call.make(Expand(sizes), *donors)


def _repeat(call: Call) -> Any:
    """Repeat along axes: of size one only, which is expanding."""
    repeats, source = call["repeats"], call.tensor("self")
    own = (1,) * (len(repeats) - len(source.traced)) + source.traced
    if any(r != 1 and size != 1 for r, size in zip(repeats, own, strict=True)):
        raise Refusal("along an axis of another size than 1 is not supported")
    return _expand(call)


def _empty(call: Call) -> Fill:
    return Fill(None, call.traced[0])


def _fill(value: float | None = None) -> Callable[[Call], Fill]:
    def fill(call: Call) -> Fill:
        number = value
        if number is None:
            number = call.given.get("fill_value", call.given.get("value"))
        if not isinstance(number, (int, float)):
            raise Refusal("with a value that depends on the inputs")
        return Fill(float(number), call.traced[0])

    return fill


def _cat(call: Call) -> Any:
    tensors = [t for t in call["tensors"] if getattr(t, "traced", None) != (0,)]
    parts = [call.builder.ref(t, f"{call.node}_{k}") for k, t in enumerate(tensors)]
    if len(parts) == 1:
        return parts[0]
    rank = len(parts[0].traced)
    axis = int(call["dim"])
    return call.make(Concatenate(axis + rank if axis < 0 else axis), *parts)


def _stack(call: Call) -> Any:
    parts = [call.builder.ref(t, f"{call.node}_{k}") for k, t in enumerate(call["tensors"])]
    rank = len(parts[0].traced) + 1
    axis = int(call["dim"])
    axis = axis + rank if axis < 0 else axis
    return Pieces(tuple(parts)) if axis == 0 else call.make(Stack(axis), *parts)


def _flip(call: Call) -> Ref:
    source = call.tensor("self")
    rank = len(source.traced)
    return call.make(Flip(tuple(a + rank if a < 0 else a for a in call["dims"])), source)


def _reduce(operation: str) -> Callable[[Call], Any]:
    def reduce(call: Call) -> Any:
        if call.given.get("dtype") not in (None, *_own_types(call)):
            raise Refusal(f"computes in {call['dtype']}")
        source = call.tensor("self")
        rank = len(source.traced)
        dims = call.given.get("dim")
        dims = [dims] if isinstance(dims, int) else dims
        axes = range(rank) if not dims else [d + rank if d < 0 else d for d in dims]
        keepdims = bool(call.given.get("keepdim", False))
        made = call.make(Reduce(operation, tuple(sorted(axes)), keepdims), source)
        return [made, None] if len(call.traced) > 1 else made

    return reduce


def _norm(call: Call) -> Any:
    if call.given.get("p", call.given.get("ord")) != 2:
        raise Refusal("of another order than 2 is not supported")
    return _reduce("norm")(call)


def _own_types(call: Call) -> tuple[Any, ...]:
    import torch

    return (getattr(torch, call.builder.dtype),)


def _binary(operation: str) -> Callable[[Call], Ref]:
    def binary(call: Call) -> Ref:
        names = list(call.given)
        a, b = call.given[names[0]], call.given[names[1]]
        alpha = call.given.get("alpha", 1)
        if alpha != 1 and isinstance(b, (int, float)):
            b = alpha * b
        elif alpha != 1:
            scaled = call.builder.ref(b, f"{call.node}_other")
            layer = Arithmetic("multiply", float(alpha))
            b = call.builder.add(f"{call.node}_alpha", layer, [scaled], [scaled.traced])[0]
        if call.given.get("rounding_mode") is not None:
            raise Refusal("with rounding is not supported")
        return _combine(call, operation, a, b)

    return binary


def combine(call: Call, operation: str) -> Ref:
    """Combine the two arguments of a call."""
    return _combine(call, operation, *call.given.values())


def _combine(call: Call, operation: str, a: Any, b: Any) -> Ref:
    a, b = _number(a), _number(b)
    if isinstance(b, (int, float)):
        return call.make(Arithmetic(operation, float(b)), call.builder.ref(a, f"{call.node}_a"))
    if isinstance(a, (int, float)):
        layer = Arithmetic(operation, float(a), number_first=True)
        return call.make(layer, call.builder.ref(b, f"{call.node}_b"))
    operands = [call.builder.ref(v, f"{call.node}_{k}") for k, v in zip("ab", (a, b), strict=True)]
    return call.make(Arithmetic(operation), *operands)


def _number(value: Any) -> Any:
    """A tensor without axes that is known is as good as a number."""
    if isinstance(value, Known) and value.traced == ():
        return float(value.value.detach())
    return value


def _reversed(operation: str) -> Callable[[Call], Ref]:
    """``other - self``."""

    def binary(call: Call) -> Ref:
        if call.given.get("alpha", 1) != 1:
            raise Refusal("with alpha is not supported")
        return _combine(call, operation, call["other"], call["self"])

    return binary


def _elementwise(function: str) -> Callable[[Call], Ref]:
    return lambda call: call.make(ActivationLayer(Activation(function)), call.tensor("self"))


def _matmul(call: Call) -> Ref:
    names = list(call.given)
    a, b = call.given[names[0]], call.given[names[1]]
    if isinstance(b, Known) and len(b.traced) == 2:  # a Linear without its module
        kernel = call.builder.array(b)
        layer = Dense(kernel.shape[0], kernel.shape[1], use_bias=False)
        x = call.builder.ref(a, f"{call.node}_a")
        return call.make(layer, x, weights={"kernel": kernel}, share=(id(b.value),))
    operands = [call.builder.ref(v, f"{call.node}_{k}") for k, v in zip("ab", (a, b), strict=True)]
    return call.make(MatMul(), *operands)


def _activation(name: str, **arguments: str) -> Callable[[Call], Ref]:
    """An activation whose parameters go by other names in torch."""

    def translate(call: Call) -> Ref:
        params = {ours: float(call[theirs]) for ours, theirs in arguments.items()}
        return call.make(ActivationLayer(Activation.of(name, **params)), call.tensor("self"))

    return translate


def _relu6(call: Call) -> Ref:
    return call.make(ActivationLayer(Activation.of("relu", max_value=6.0)), call.tensor("self"))


def _gelu(call: Call) -> Ref:
    name = "gelu_tanh" if call["approximate"] == "tanh" else "gelu"
    return call.make(ActivationLayer(Activation(name)), call.tensor("self"))


def _softmax(name: str) -> Callable[[Call], Ref]:
    def translate(call: Call) -> Ref:
        source = call.tensor("self")
        axis = call.axis()
        # Counted from the back where it is the last: that form has a kernel.
        axis = -1 if axis == len(source.traced) - 1 else axis
        return call.make(ActivationLayer(Activation.of(name, axis=axis)), source)

    return translate


def _softplus(call: Call) -> Ref:
    return _activation("softplus", beta="beta", threshold="threshold")(call)


def _elu(call: Call) -> Ref:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise Refusal("with scales is not supported")
    return _activation("elu", alpha="alpha")(call)


def _prelu(call: Call) -> Ref:
    alpha = call.array("weight")
    if alpha is None:
        raise Refusal("expected slopes")
    weights, share = call.weights(alpha="weight")
    # One slope for all, or one for each feature on axis 1.
    source = call.tensor("self")
    axis = min(1, len(source.traced) - 1)
    return call.make(PReLU(alpha.shape, axis), source, weights=weights, share=share)


def _clamp(call: Call) -> Ref:
    """Clip between two numbers, either of which may be missing."""
    x, traced = call.tensor("self"), call.traced[:1]
    low, high = call.given.get("min"), call.given.get("max")
    made = x
    for operation, bound in (("maximum", low), ("minimum", high)):
        if bound is None:
            continue
        if not isinstance(bound, (int, float)):
            raise Refusal("with a bound that is a tensor is not supported")
        layer = Arithmetic(operation, float(bound))
        made = call.builder.add(call.node, layer, [made], traced)[0]
    return made


def _hardtanh(call: Call) -> Ref:
    low, high = float(call["min_val"]), float(call["max_val"])
    if (low, high) == (0.0, 6.0):
        return _relu6(call)
    if (low, high) == (-1.0, 1.0):
        return call.make(ActivationLayer(Activation("hard_tanh")), call.tensor("self"))
    call.given.update(min=low, max=high)
    return _clamp(call)


def _power(call: Call) -> Ref:
    exponent = call["exponent"]
    if exponent == 2:
        return call.make(ActivationLayer(Activation("square")), call.tensor("self"))
    return _combine(call, "power", call["self"], exponent)


def _glu(call: Call) -> Ref:
    """``a * sigmoid(b)``, a and b the halves along an axis."""
    axis, source = call.axis(), call.tensor("self")
    size, traced = source.traced[axis], call.traced[:1]
    if not isinstance(size, int):
        raise Refusal("along an axis whose size is free")
    halves = (Slice(axis, 0, size // 2), Slice(axis, size // 2, size))
    a, b = (call.builder.add(f"{call.node}_half", h, [source], traced)[0] for h in halves)
    gate = ActivationLayer(Activation("sigmoid"))
    b = call.builder.add(f"{call.node}_gate", gate, [b], traced)[0]
    return call.make(Arithmetic("multiply"), a, b)


def _flag_at(position: int) -> Callable[[Sequence[Any]], int]:
    """Axis of the batch in a recurrent op, from its argument ``batch_first``."""
    return lambda args: 0 if args[position] else 1


# Operations that tell which axis of their first argument is the batch.
TIME_AXES: dict[str, Callable[[Sequence[Any]], int]] = {
    **{f"aten.{op}.input": _flag_at(8) for op in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **dict.fromkeys(
        (f"aten.{op}_cell.default" for op in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
        lambda args: 0,
    ),
}

# Checks and hints that compute nothing.
IGNORED = {
    "aten._assert_async.msg", "aten._assert_scalar.default", "aten._assert_tensor_metadata.default",
    "aten.sym_constrain_range.default", "aten.sym_constrain_range_for_size.default",
    "aten.dim.default", "aten._functional_assert_async.msg",
}  # fmt: skip

_SAME = (
    "alias.default", "clone.default", "contiguous.default", "detach.default", "detach_.default",
    "lift_fresh_copy.default", "positive.default",
)  # fmt: skip
_VIEWS = (
    "view.default", "reshape.default", "_unsafe_view.default", "unsqueeze.default",
    "squeeze.default", "squeeze.dim", "squeeze.dims", "flatten.using_ints", "unflatten.int",
    "view_copy.default", "_reshape_copy.default", "reshape_as.default", "view_as.default",
)  # fmt: skip

_TABLE: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(_SAME, _same),
    **{f"{kind}dropout.default": _dropout
       for kind in ("", "alpha_", "feature_", "feature_alpha_")},
    **dict.fromkeys(_VIEWS, _view),
    "to.dtype": _cast, "to.dtype_layout": _cast, "to.other": _same, "to.device": _cast,
    "_to_copy.default": _cast, "type_as.default": _same,
    # Layers.
    "linear.default": _linear, "addmm.default": _addmm, "embedding.default": _embedding,
    "batch_norm.default": _batch_norm, "layer_norm.default": _layer_norm,
    "conv1d.default": _conv1d, "conv1d.padding": _conv1d, "convolution.default": _convolution,
    "max_pool1d.default": _pool("max"), "avg_pool1d.default": _pool("mean"),
    "adaptive_avg_pool1d.default": _adaptive_pool("mean"),
    "adaptive_max_pool1d.default": _adaptive_pool("max"),
    "lstm.input": _recurrent("LSTM"), "gru.input": _recurrent("GRU"),
    "rnn_tanh.input": _recurrent("RNN_TANH"), "rnn_relu.input": _recurrent("RNN_RELU"),
    "lstm_cell.default": _cell("LSTM"), "gru_cell.default": _cell("GRU"),
    "rnn_tanh_cell.default": _cell("RNN_TANH"), "rnn_relu_cell.default": _cell("RNN_RELU"),
    # Moving elements about.
    "select.int": _select, "slice.Tensor": _slice, "narrow.default": _narrow,
    "split.Tensor": _split, "split.sizes": _split, "split_with_sizes.default": _split,
    "chunk.default": _split, "unbind.int": _unbind,
    "permute.default": _permute, "transpose.int": _transpose, "swapaxes.default": _transpose,
    "swapdims.default": _transpose, "t.default": _t, "numpy_T.default": _t,
    "movedim.int": _movedim, "movedim.intlist": _movedim, "moveaxis.int": _movedim,
    "moveaxis.intlist": _movedim, "mT.default": _last_two,
    "expand.default": _expand, "expand_as.default": _expand, "repeat.default": _repeat,
    "cat.default": _cat, "concat.default": _cat, "stack.default": _stack, "flip.default": _flip,
    "zeros.default": _fill(0.0), "zeros_like.default": _fill(0.0), "new_zeros.default": _fill(0.0),
    "ones.default": _fill(1.0), "ones_like.default": _fill(1.0), "new_ones.default": _fill(1.0),
    "empty.memory_format": _empty, "empty_like.default": _empty, "new_empty.default": _empty,
    "zero.default": _fill(0.0), "fill.Scalar": _fill(),
    "full.default": _fill(), "full_like.default": _fill(), "new_full.default": _fill(),
    # Along axes.
    "mean.dim": _reduce("mean"), "mean.default": _reduce("mean"),
    "sum.dim_IntList": _reduce("sum"), "sum.default": _reduce("sum"),
    "amax.default": _reduce("max"), "amin.default": _reduce("min"),
    "linalg_vector_norm.default": _norm, "norm.ScalarOpt_dim": _norm, "norm.Scalar": _norm,
    "max.dim": _reduce("max"), "min.dim": _reduce("min"),
    # Arithmetic.
    **{f"{op}.{form}": _binary(ours)
       for op, ours in {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide",
                        "subtract": "subtract", "multiply": "multiply", "divide": "divide",
                        "true_divide": "divide"}.items()
       for form in ("Tensor", "Scalar")},
    "div.Tensor_mode": _binary("divide"),
    "maximum.default": _binary("maximum"), "minimum.default": _binary("minimum"),
    "max.other": _binary("maximum"), "min.other": _binary("minimum"),
    "rsub.Scalar": _reversed("subtract"), "rsub.Tensor": _reversed("subtract"),
    "pow.Tensor_Scalar": _power, "pow.Tensor_Tensor": _power,
    **{f"{op}.default": _elementwise(ours)
       for op, ours in {"abs": "abs", "cos": "cos", "log": "log", "log1p": "log1p",
                        "neg": "negative", "expm1": "expm1", "reciprocal": "reciprocal",
                        "rsqrt": "rsqrt", "sign": "sign", "sin": "sin", "sqrt": "sqrt",
                        "square": "square"}.items()},
    "matmul.default": _matmul, "bmm.default": _matmul, "mm.default": _matmul,
    # Activations.
    **{f"{op}.default": _activation(ours)
       for op, ours in {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "exp": "exponential",
                        "silu": "silu", "mish": "mish", "selu": "selu",
                        "hardsigmoid": "hard_sigmoid_sixth", "hardswish": "hard_silu",
                        "log_sigmoid": "log_sigmoid", "softsign": "softsign"}.items()},
    "relu6.default": _relu6, "gelu.default": _gelu, "elu.default": _elu,
    "softplus.default": _softplus,
    "celu.default": _activation("celu", alpha="alpha"),
    "leaky_relu.default": _activation("relu", negative_slope="negative_slope"),
    "softshrink.default": _activation("soft_shrink", threshold="lambd"),
    "hardshrink.default": _activation("hard_shrink", threshold="lambd"),
    "hardtanh.default": _hardtanh, "clamp.default": _clamp, "clip.default": _clamp,
    "clamp_min.default": _clamp, "clamp_max.default": _clamp,
    "prelu.default": _prelu, "glu.default": _glu,
    "softmax.int": _softmax("softmax"), "_softmax.default": _softmax("softmax"),
    "log_softmax.int": _softmax("log_softmax"), "_log_softmax.default": _softmax("log_softmax"),
}  # fmt: skip

OPS = {f"aten.{name}": function for name, function in _TABLE.items()}
