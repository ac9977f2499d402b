"""The operators LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npylstm.activations import SIGMOID, TANH, Activation
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.indexing import Flip, Select
from npylstm.ops.masking import SequenceMask
from npylstm.ops.shaping import Reshape, Stack, Transpose
from npylstm_converters import layouts
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.shaping import full
from npylstm_converters.onnx.values import ConstantTensor, Ref, Value

__all__ = ["gru", "lstm", "rnn"]

# ONNX' activations: name here, and the defaults of alpha and beta by the names of parameters; None
# where onnxruntime has another default than the standard, or the standard has none.
_ACTIVATIONS: Mapping[str, tuple[str, Mapping[str, float | None]]] = {
    "relu": ("relu", {}),
    "tanh": ("tanh", {}),
    "sigmoid": ("sigmoid", {}),
    "softsign": ("softsign", {}),
    "softplus": ("softplus", {}),
    "affine": ("affine", {"alpha": None, "beta": None}),
    "leakyrelu": ("relu", {"negative_slope": 0.01}),
    "thresholdedrelu": ("thresholded_relu", {"theta": None}),
    "scaledtanh": ("scaled_tanh", {"alpha": None, "beta": None}),
    "hardsigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "elu": ("elu", {"alpha": 1.0}),
}


_Layer = tuple[Operation, dict[str, Array]]


class _Cell(NamedTuple):
    """What the attributes say of a recurrent operator."""

    directions: int
    reverse: bool
    layout: int
    units: int
    activations: list[list[Activation]]  # by direction
    clip: float | None

    @property
    def ways(self) -> list[bool]:
        """For each direction, whether it reads backwards."""
        return [False, True] if self.directions == 2 else [self.reverse]


def _units(hidden_size: int | None, R: Value) -> int:
    """Return the number of units, which files of old versions leave to the weights."""
    if hidden_size is None and isinstance(R, ConstantTensor) and R.array.ndim == 3:
        return int(R.array.shape[-1])
    if hidden_size is None:
        raise Refusal("hidden_size is missing")
    return hidden_size


def _cell(
    defaults: Sequence[Activation], direction: str, layout: int, hidden_size: int,
    activations: Sequence[str] | None, alphas: Sequence[float], betas: Sequence[float],
    clip: float | None,
) -> _Cell:  # fmt: skip
    known = {"forward": (1, False), "reverse": (1, True), "bidirectional": (2, False)}
    if direction not in known:
        raise Refusal(f"direction: expected one of {', '.join(known)}, got {direction!r:.40}")
    if layout not in (0, 1):
        raise Refusal(f"layout: expected 0 or 1, got {layout}")
    directions, reverse = known[direction]
    each = len(defaults)
    if activations is None:
        made = [*defaults] * directions
    else:
        if len(activations) != each * directions:
            raise Refusal(
                f"activations: expected {each * directions} names, got {len(activations)}"
            )
        a, b = iter(alphas), iter(betas)
        made = [_activation(name, a, b) for name in activations]
    return _Cell(
        directions, reverse, layout, hidden_size,
        [made[k * each : (k + 1) * each] for k in range(directions)], clip or None,
    )  # fmt: skip


def _activation(name: str, alphas: Any, betas: Any) -> Activation:
    """Return an activation; those with parameters take the next ones from the lists."""
    row = _ACTIVATIONS.get(name.lower())
    if row is None:
        known = ", ".join(_ACTIVATIONS)
        raise Refusal(f"activation {name!r:.40} is not supported, only {known}")
    ours, defaults = row
    given = (alphas, betas)
    params = {}
    for (key, default), values in zip(defaults.items(), given, strict=False):
        number = next(values, default)
        if number is None:
            raise Refusal(
                f"activation {name!r}: the file does not state {key}, and programs differ in what "
                "they take instead"
            )
        params[key] = float(number)
    return Activation.of(ours, **params)


def _array(value: Value | None, name: str, shape: tuple[int, ...]) -> Array:
    if not isinstance(value, ConstantTensor):
        raise Refusal(f"{name}: is computed from an input, which is supported for constants only")
    if value.array.shape != shape:
        raise Refusal(f"{name}: expected shape {shape}, got {value.array.shape}")
    return value.array


def _biases(value: Value | None, cell: _Cell, gates: int) -> list[Array | None]:
    if value is None:
        return [None] * cell.directions
    return [*_array(value, "B", (cell.directions, 2 * gates * cell.units))]


def _kernels(W: Value, R: Value, cell: _Cell, gates: int) -> tuple[Array, Array, int]:
    features = W.array.shape[-1] if isinstance(W, ConstantTensor) and W.array.ndim else 0
    rows = gates * cell.units
    w = _array(W, "W", (cell.directions, rows, features))
    return w, _array(R, "R", (cell.directions, rows, cell.units)), features


def _mask(graph: Any, x: Ref, lengths: Value | None, cell: _Cell) -> list[Ref]:
    """Return the mask of sequence_lens; none if all sequences have all steps."""
    steps = graph.shape(x)[1 if cell.layout else 0]
    if lengths is None:
        return []
    if isinstance(lengths, ConstantTensor):
        if isinstance(steps, int) and (lengths.array == steps).all():
            return []
        raise Refusal(
            f"sequence_lens: is the constant {np.ravel(lengths.array).tolist()!r:.60}, supported "
            "only if it is the number of steps"
        )
    return [graph.add(SequenceMask(int(cell.layout)), x, graph.tensor(lengths), part="mask")]


def _last_size(graph: Any, state: Value) -> Any:
    shape = state.array.shape if isinstance(state, ConstantTensor) else graph.shape(state)
    return shape[-1] if shape else None


def _initial(graph: Any, states: Sequence[Value | None], cell: _Cell) -> list[Ref]:
    """Return the initial states, direction by direction; none if all are zeros."""
    for letter, state in zip("hc", states, strict=False):
        width = None if state is None else _last_size(graph, state)
        if width not in (None, cell.units):
            raise Refusal(
                f"initial_{letter}: has {width} units, the layer {cell.units}; if this was an LSTM "
                "with proj_size, PyTorch's exporter has left weights out (dynamo=True)"
            )
    if all(graph.is_zero(state) for state in states):
        return []
    (known, *_) = (graph.tensor(state) for state in states if state is not None)
    given = []
    for way in range(cell.directions):
        for letter, state in zip("hc", states, strict=False):
            tensor = full(graph, graph.sizes(known), 0.0) if state is None else graph.tensor(state)
            part = f"{letter}0_{way}" if cell.directions > 1 else f"{letter}0"
            given.append(graph.add(Select(int(cell.layout), way), tensor, part=part))
    return given


def _add(
    graph: Any, x: Value, lengths: Value | None, states: Sequence[Value | None], cell: _Cell,
    make: Callable[[int, bool, dict[str, Any]], _Layer],
    values: Sequence[Value | None],
) -> list[Any]:  # fmt: skip
    """Add the layer; return Y and the states as ONNX arranges them."""
    sequence = graph.tensor(x)
    if len(graph.shape(sequence)) != 3:
        raise Refusal(f"X: expected 3 axes, got {len(graph.shape(sequence))}")
    mask = _mask(graph, sequence, lengths, cell)
    options = {
        "return_sequences": True, "return_state": True, "time_major": not cell.layout,
        "masked": bool(mask), "zero_output_for_mask": bool(mask), "clip": cell.clip,
    }  # fmt: skip
    layers = [make(k, backwards, options) for k, backwards in enumerate(cell.ways)]
    (operation, weights) = layers[0]
    if cell.directions == 2:
        operation = Bidirectional(layers[0][0], layers[1][0])
        weights = {f"forward/{k}": w for k, w in layers[0][1].items()}
        weights |= {f"backward/{k}": w for k, w in layers[1][1].items()}
    initial = _initial(graph, states, cell)
    main, *finals = graph.layer(operation, weights, sequence, *initial, *mask, values=values)
    return [_all_steps(graph, main, cell), *_final_states(graph, finals, cell, len(states))]


def _all_steps(graph: Any, main: Ref, cell: _Cell) -> Any:
    """Return Y: (steps, directions, batch, units), or (batch, steps, directions, units)."""
    if not graph.outputs[0]:
        return None
    if cell.reverse:  # the layer returns them in the order in which it reads
        main = graph.add(Flip((int(cell.layout),)), main, part="in_order")
    split = graph.add(Reshape(((0, 0), (0, 1), cell.directions, cell.units)), main, part="ways")
    if cell.layout:
        return split
    if cell.directions == 1:
        return graph.add(Reshape(((0, 0), 1, (0, 1), cell.units)), main, part="Y")
    return graph.add(Transpose((0, 2, 1, 3)), split, part="Y")


def _final_states(graph: Any, finals: Sequence[Ref], cell: _Cell, count: int) -> list[Any]:
    """Return Y_h and Y_c: (directions, batch, units), or (batch, directions, units)."""
    made: list[Any] = []
    for k in range(count):
        if len(graph.outputs) <= k + 1 or not graph.outputs[k + 1]:
            made.append(None)
            continue
        own = finals[k::count]
        made.append(graph.add(Stack(int(cell.layout)), *own, part=f"Y_{'hc'[k]}"))
    return made


def lstm(
    graph: Any, X: Value, W: Value, R: Value, B: Value | None = None,
    sequence_lens: Value | None = None, initial_h: Value | None = None,
    initial_c: Value | None = None, P: Value | None = None, *,
    hidden_size: int | None = None, direction: str = "forward", layout: int = 0,
    activations: Sequence[str] | None = None, activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (), clip: float | None = None, input_forget: int = 0,
) -> list[Any]:  # fmt: skip
    """Add an LSTM."""
    cell = _cell((SIGMOID, TANH, TANH), direction, layout, _units(hidden_size, R), activations,
                 activation_alpha, activation_beta, clip)  # fmt: skip
    w, r, features = _kernels(W, R, cell, 4)
    biases = _biases(B, cell, 4)
    peepholes = [None] * cell.directions
    if P is not None:
        peepholes = [*_array(P, "P", (cell.directions, 3 * cell.units))]

    def make(k: int, backwards: bool, options: dict[str, Any]) -> _Layer:
        recurrent, activation, output = cell.activations[k]
        layer = LSTM(
            features, cell.units, activation, recurrent_activation=recurrent,
            go_backwards=backwards, use_bias=biases[k] is not None,
            peepholes=peepholes[k] is not None, coupled=bool(input_forget),
            output_activation=None if output == activation else output,
            **options,
        )  # fmt: skip
        return layer, layouts.lstm_from_onnx(w[k], r[k], biases[k], peepholes[k])

    states = (initial_h, initial_c)
    return _add(graph, X, sequence_lens, states, cell, make, (W, R, B, P))


def gru(
    graph: Any, X: Value, W: Value, R: Value, B: Value | None = None,
    sequence_lens: Value | None = None, initial_h: Value | None = None, *,
    hidden_size: int | None = None, direction: str = "forward", layout: int = 0,
    activations: Sequence[str] | None = None, activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (), clip: float | None = None, linear_before_reset: int = 0,
) -> list[Any]:  # fmt: skip
    """Add a GRU."""
    cell = _cell((SIGMOID, TANH), direction, layout, _units(hidden_size, R), activations,
                 activation_alpha, activation_beta, clip)  # fmt: skip
    w, r, features = _kernels(W, R, cell, 3)
    biases = _biases(B, cell, 3)
    after = bool(linear_before_reset)

    def make(k: int, backwards: bool, options: dict[str, Any]) -> _Layer:
        recurrent, activation = cell.activations[k]
        layer = GRU(
            features, cell.units, activation, recurrent_activation=recurrent,
            go_backwards=backwards, use_bias=biases[k] is not None, reset_after=after, **options,
        )  # fmt: skip
        return layer, layouts.gru_from_onnx(w[k], r[k], biases[k], after)

    return _add(graph, X, sequence_lens, (initial_h,), cell, make, (W, R, B))


def rnn(
    graph: Any, X: Value, W: Value, R: Value, B: Value | None = None,
    sequence_lens: Value | None = None, initial_h: Value | None = None, *,
    hidden_size: int | None = None, direction: str = "forward", layout: int = 0,
    activations: Sequence[str] | None = None, activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (), clip: float | None = None,
) -> list[Any]:  # fmt: skip
    """Add a simple recurrent layer."""
    cell = _cell((TANH,), direction, layout, _units(hidden_size, R), activations,
                 activation_alpha, activation_beta, clip)  # fmt: skip
    w, r, features = _kernels(W, R, cell, 1)
    biases = _biases(B, cell, 1)

    def make(k: int, backwards: bool, options: dict[str, Any]) -> _Layer:
        layer = SimpleRNN(
            features, cell.units, cell.activations[k][0], go_backwards=backwards,
            use_bias=biases[k] is not None, **options,
        )  # fmt: skip
        return layer, layouts.rnn_from_onnx(w[k], r[k], biases[k])

    return _add(graph, X, sequence_lens, (initial_h,), cell, make, (W, R, B))
