"""Forecasts with outputs fed back as inputs, and decoding with an encoder and a decoder."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError, ShapeError, UnsupportedError
from npylstm.graph.joining import join_models
from npylstm.graph.state import State
from npylstm.loading import warn_caller
from npylstm.ops.shapes import BATCH, STEPS, Shape, drop_axis, format_shape, resize_axis
from npylstm.runtime.binding import bind, bind_state, numbers
from npylstm.runtime.predictor import Predictor
from npylstm.runtime.session import Session
from npylstm.spec import TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.runtime.binding import Inputs, StateArrays

__all__ = ["Feed", "Window", "decode", "forecast"]

# Quantized models whose outputs were fed back.
_WARNED: weakref.WeakSet[Predictor] = weakref.WeakSet()

Feed = Callable[[Array], "npt.ArrayLike"]
Window = int | Literal["auto"] | None


def forecast(
    model: Predictor,
    x: npt.ArrayLike,
    steps: int,
    *,
    window: Window,
    feed: Feed | None,
    state: StateArrays | None,
) -> tuple[Array, State]:
    """Return the result of :meth:`npylstm.Model.forecast`, and the final state."""
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise NpylstmError(f"steps: expected a positive integer, got {steps!r}")
    _warn_of_drift(model)
    inputs, outputs = model.spec.inputs, model.spec.output_specs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ShapeError(
            f"forecast: expected one input and one output, the model has {len(inputs)} and "
            f"{len(outputs)}"
        )
    source = inputs[0]
    axis = _steps_of(source)
    if window == "auto":
        size = source.shape[axis]
        window = size if isinstance(size, int) else None
    target = outputs[0].shape
    in_steps = len(target) == 3 and len(target) > axis and target[axis] == source.shape[axis]
    last_step = (slice(None),) * axis + (-1,) if in_steps else ()
    if feed is None:
        _check_step_shapes(source, axis, target, last_step)
    if window is None:
        return _carried(model, x, int(steps), last_step, feed, state)
    if isinstance(window, bool) or not isinstance(window, (int, np.integer)) or window < 1:
        raise NpylstmError(f"window: expected 'auto', None or a positive integer, got {window!r}")
    return _windowed(model, x, int(steps), int(window), axis, last_step, feed, state)


def _warn_of_drift(model: Predictor) -> None:
    """Warn once for each quantized model."""
    if model in _WARNED or not any(layer.stored for layer in model.spec.layers):
        return
    _WARNED.add(model)
    warn_caller(
        f"{model.spec.name} is quantized: outputs that are fed back accumulate its errors, which "
        "grow to the size of the signal within some hundred steps; use the float32 model "
        "if they matter"
    )


def _steps_of(source: TensorSpec) -> int:
    """Return the time axis of the only input."""
    axis = source.time_axis
    if axis is None and len(source.shape) == 2:
        axis = 1
    if axis is None:
        raise ShapeError(f"forecast: the input {source} has no steps")
    return axis


def _check_step_shapes(source: TensorSpec, axis: int, target: Shape, last_step: Any) -> None:
    """Check that a step of the output has the shape of a step of the input."""
    ahead = axis if last_step else len(target)
    made = drop_axis(target, ahead)
    wanted = drop_axis(source.shape, axis)
    if made != wanted:
        raise ShapeError(
            f"forecast: a step of the output is {format_shape(made)}, of the input "
            f"{format_shape(wanted)}; give feed=, a function that makes the one of the other"
        )


def _carried(
    model: Predictor, x: npt.ArrayLike, steps: int, last_step: Any, feed: Feed | None, state: Any
) -> tuple[Array, State]:
    """Forecast with carried state: push ``x``, then each output as one step."""
    batch = _batch_of(model, x)
    session = Session(model, batch)
    if state is not None:
        session.state = state
    y = np.ascontiguousarray(session.push(x)[last_step])
    if feed is None and steps > 1 and y.ndim == 2:
        rest = session.loop(y, steps - 1)
        if rest is not None:
            return np.concatenate([y[:, None], rest], axis=1), session.state
    outputs = [y]
    while len(outputs) < steps:
        outputs.append(session.step(outputs[-1] if feed is None else feed(outputs[-1].copy())))
    return np.stack(outputs, axis=1), session.state


def _windowed(
    model: Predictor, x: npt.ArrayLike, steps: int, window: int, axis: int, last_step: Any,
    feed: Feed | None, state: Any,
) -> tuple[Array, State]:  # fmt: skip
    """Forecast with a moving window: each run reads the last ``window`` values."""
    source = model.spec.inputs[0]
    if source.shape[axis] not in (window,) and isinstance(source.shape[axis], int):
        raise ShapeError(f"window: the input {source} wants {source.shape[axis]}, got {window}")
    free = replace(source, shape=resize_axis(source.shape, axis, STEPS))
    given = bind(x, [free], model.spec.dtype)[source.name]
    if given.shape[axis] < window:
        raise ShapeError(
            f"{source.name}: expected at least {window} steps, got {given.shape[axis]}"
        )
    seen = given[(slice(None),) * axis + (slice(-window, None),)]
    batch = given.shape[source.shape.index(BATCH)]
    spec = model.spec
    initial = bind_state(state, spec.state_shapes(), batch, spec.dtype)
    # Layers that are stateful in the framework carry their state from window to window.
    stateful = {e.name: spec[e.layer].layer.stateful for e in spec.edges}
    fresh = {call: entries for call, entries in initial.items() if not stateful[call]}
    stream = model.stream(batch)
    stream.write(initial)
    if feed is None and axis == 1 and seen.ndim == 3 and len(fresh) in (0, len(initial)):
        last = (window - 1) * seen.shape[2] if last_step else 0
        made = stream.loop(np.ascontiguousarray(seen), steps, last, carry=not fresh)
        if made is not None:
            return made.swapaxes(0, 1).copy(), stream.read()
    outputs: list[Array] = []
    for _ in range(steps):
        if outputs:
            y = outputs[-1]
            value = y if feed is None else numbers(feed(y.copy()), spec.dtype, "feed")
            wanted = drop_axis(seen.shape, axis)
            if value.shape != wanted:
                raise ShapeError(f"feed: expected shape {wanted}, got {value.shape}")
            kept = seen[(slice(None),) * axis + (slice(1, None),)]
            seen = np.concatenate([kept, np.expand_dims(value, axis)], axis=axis)
        if fresh:
            stream.write(stream.read() | fresh)
        made = stream.run({source.name: np.ascontiguousarray(seen)})[spec.outputs[0]]
        outputs.append(made[last_step].copy())
    return np.stack(outputs, axis=1), stream.read()


def _batch_of(model: Predictor, x: npt.ArrayLike) -> int:
    source = model.spec.inputs[0]
    shape = np.shape(numbers(x, model.spec.dtype, source.name))
    axis = source.shape.index(BATCH)
    if len(shape) <= axis:
        raise ShapeError(f"{source.name}: expected {format_shape(source.shape)}, got {shape}")
    return int(shape[axis])


def decode(
    encoder: Predictor,
    decoder: Predictor,
    x: Inputs,
    start: npt.ArrayLike,
    steps: int,
    *,
    feed: Feed | Literal["argmax"] | None = None,
    stop: int | None = None,
) -> Array:
    """Encode a sequence, then run a decoder step by step on its own outputs.

    Parameters
    ----------
    encoder
        Returns the decoder's initial state: outputs with the names of the decoder's inputs; if the
        names differ, its last outputs, in the order of the decoder's inputs.
    decoder
        One step. Its first input is the step's, the others are states (or any other output of the
        encoder, such as its sequence). Its first output is the step's, the others are the new
        states. These replace the inputs that are the initial states of the same calls, else the
        last inputs.
    x
        The encoder's input, as for :meth:`npylstm.Model.predict`.
    start
        The decoder's first input for a step, ``(batch, features)``, or ids ``(batch,)``; smaller
        arrays are broadcast.
    steps
        Maximum number of outputs.
    feed
        Computes the next input from an output ``(batch, units)``: a function; ``"argmax"`` for the
        index of the largest value, as an id or one-hot, as the decoder requires; None for the
        output itself.
    stop
        With ``"argmax"``: the index that ends a sequence. Decoding ends when all have ended.

    Returns
    -------
    Array
        The decoder's outputs ``(batch, steps, units)``.

    Raises
    ------
    ShapeError
        If the two models or the start do not fit together.

    References
    ----------
    Sutskever, Vinyals, Le: Sequence to Sequence Learning with Neural Networks, NIPS 2014.
    """
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise NpylstmError(f"steps: expected a positive integer, got {steps!r}")
    if stop is not None and feed != "argmax":
        raise NpylstmError("stop: expected feed='argmax' with it")
    if isinstance(feed, str) and feed != "argmax":
        raise NpylstmError(f"feed: expected a function, 'argmax' or None, got {feed!r}")
    _warn_of_drift(decoder)
    joints = join_models(encoder.spec, decoder.spec)
    made = _by_name(encoder, encoder.predict(x))
    inputs: dict[str, Any] = {name: made[source] for name, source in joints.given.items()}
    with contextlib.suppress(UnsupportedError):
        decoder = decoder.with_free_steps()
    first, dtype = decoder.spec.inputs[0], decoder.spec.dtype
    batch = next(iter(inputs.values())).shape[decoder.spec.inputs[1].shape.index(BATCH)]
    axis = _step_axis(first)
    sizes = [batch if d == BATCH else d for k, d in enumerate(first.shape) if k != axis]
    shape = tuple(d for d in sizes if isinstance(d, int))
    if len(shape) < len(sizes):
        raise ShapeError(f"the decoder's input {first}: expected known sizes beside the step")
    try:
        token = np.broadcast_to(numbers(start, dtype, "start"), shape)
    except ValueError:
        raise ShapeError(f"start: expected shape {shape}, got {np.shape(start)}") from None
    outputs: list[Array] = []
    ended = np.zeros(batch, bool)
    while len(outputs) < steps and not ended.all():
        inputs[first.name] = token if axis is None else np.expand_dims(token, axis)
        made = _by_name(decoder, decoder.predict(inputs))
        y = made[decoder.spec.outputs[0]]
        inputs |= {name: made[source] for name, source in joints.fed_back.items()}
        outputs.append(y[:, 0] if y.ndim == 3 else y)
        if feed == "argmax":
            best = outputs[-1].argmax(axis=-1)
            ended |= best == (-1 if stop is None else stop)
            token = _as_input(best, shape, outputs[-1].shape[-1])
        else:
            following = outputs[-1] if feed is None else feed(outputs[-1].copy())
            token = numbers(following, dtype, "feed")
        if token.shape != shape:
            raise ShapeError(f"the decoder's next input: expected shape {shape}, got {token.shape}")
    return np.stack(outputs, axis=1)


def _by_name(model: Predictor, y: Array | dict[str, Array]) -> dict[str, Array]:
    return y if isinstance(y, dict) else {model.spec.outputs[0]: y}


def _step_axis(tensor: TensorSpec) -> int | None:
    """Return the time axis, of size one, of the decoder's input for a step; None if it has none."""
    axis = tensor.time_axis
    if axis is None and len(tensor.shape) == 2 and isinstance(tensor.shape[1], str):
        axis = 1  # ids or values, one for each step
    if axis is not None and isinstance(tensor.shape[axis], int) and tensor.shape[axis] != 1:
        raise ShapeError(f"the decoder's input {tensor}: its layers take no single step")
    return axis


def _as_input(best: Array, shape: tuple[int, ...], classes: int) -> Array:
    """Return indices as the decoder reads them: one-hot, or as ids."""
    if len(shape) == 2 and shape[1] == classes and classes > 1:
        return np.eye(classes)[best]
    return best.reshape(shape) if best.size == np.prod(shape) else best
