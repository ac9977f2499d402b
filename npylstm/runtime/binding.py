"""Check what users pass, and convert it for the engines."""

from __future__ import annotations

import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError, ShapeError, StateError, UnsupportedError
from npylstm.graph.state import State, StateShapes, zero_state
from npylstm.ops.shapes import BATCH, drop_axis, format_shape
from npylstm.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.ops.external import Function

    Inputs = npt.ArrayLike | Sequence[npt.ArrayLike] | Mapping[str, npt.ArrayLike]
    StateArrays = Mapping[str, Mapping[str, npt.ArrayLike]]

__all__ = [
    "bind", "bind_functions", "bind_mask", "bind_nan", "bind_state", "check_out", "numbers",
    "unbind",
]  # fmt: skip


def bind(
    x: Inputs,
    tensors: Sequence[TensorSpec],
    dtype: str,
    batch: int | None = None,
    where: str = "the session",
    nan: str = "pass",
    fixed_steps: Container[str] = (),
) -> dict[str, Array]:
    """Check inputs against shapes and convert them to the model's dtype.

    Parameters
    ----------
    x
        One array, a list in order, or a mapping by name.
    tensors
        The expected names and shapes.
    dtype
        The model's.
    batch
        The required batch size, if there is one.
    where
        Where the batch size comes from, for the message.
    nan
        ``"raise"`` if nan is an error.
    fixed_steps
        The names of inputs whose number of steps cannot be free.

    Raises
    ------
    ShapeError
        With the input, its shape and the expected one; or with the position of the first nan.
    """
    given = _by_name(x, tensors)
    sizes: dict[str, tuple[int, str]] = {}
    if batch is not None:
        sizes[BATCH] = (batch, where)
    bound = {}
    for tensor in tensors:
        label = tensor.name
        array = numbers(given[tensor.name], dtype, label)
        wrong = f"{label}: expected {format_shape(tensor.shape)}, got {array.shape}"
        if array.ndim != len(tensor.shape):
            argument = "x" if len(tensors) == 1 else label
            raise ShapeError(wrong + _with_batch_axis(argument, tensor, array.shape, batch))
        for symbol, size in zip(tensor.shape, array.shape, strict=True):
            if isinstance(symbol, int):
                known, where = symbol, label
            else:
                known, where = sizes.setdefault(symbol, (size, label))
            if size != known or (size == 0 and symbol != BATCH):
                reason = (
                    f" ({symbol} is {known} in {where})" if isinstance(symbol, str) and size else ""
                )
                fixed = tensor.name in fixed_steps
                hint = "" if fixed else _with_free_steps(tensor, array.shape)
                raise ShapeError(wrong + reason + hint)
        if tensor.integer:
            _expect_integers(array, label)
        bound[tensor.name] = array
    if nan == "raise":
        _check_nan(bound)
    return bound


def unbind(outputs: dict[str, Array]) -> Any:
    """Return outputs as users get them: the only one as an array, several by name."""
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def check_out(
    out: Any, shape: tuple[int | str, ...], dtype: np.dtype[Any], outputs: int = 1
) -> None:
    """Check an array for the output of a model.

    Raises
    ------
    ShapeError
        If the model has several outputs, or the array is another one than expected.
    """
    if outputs > 1:
        raise ShapeError(f"out: the model has {outputs} outputs, expected one")
    fits = isinstance(out, np.ndarray) and out.dtype == dtype and out.shape == shape
    if not fits or not out.flags.c_contiguous or not out.flags.writeable:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"out: expected a contiguous array, {dtype} {shape}, got {got}")


def _with_free_steps(tensor: TensorSpec, shape: tuple[int, ...]) -> str:
    """Return a hint how to allow another number of steps, if only that is wrong."""
    axis = tensor.time_axis
    if axis is None or not isinstance(tensor.shape[axis], int) or not shape[axis]:
        return ""
    fits = all(
        size == symbol or isinstance(symbol, str)
        for size, symbol in zip(drop_axis(shape, axis), drop_axis(tensor.shape, axis), strict=True)
    )
    return "; model.with_free_steps() takes any number of steps" if fits else ""


def _with_batch_axis(
    argument: str, tensor: TensorSpec, shape: tuple[int, ...], batch: int | None
) -> str:
    """Return a hint how to add the batch axis, if only that is missing."""
    if BATCH not in tensor.shape:
        return ""
    axis = tensor.shape.index(BATCH)
    wanted = drop_axis(tensor.shape, axis)
    fits = len(shape) == len(wanted) and all(
        size == symbol or (isinstance(symbol, str) and size)
        for size, symbol in zip(shape, wanted, strict=True)
    )
    if not fits or batch not in (None, 1):
        return ""
    what = "sample" if tensor.time_axis is None else "sequence"
    return f"; for one {what} give {argument}[{':, ' * axis}None]"


def bind_nan(nan: str) -> str:
    """Check the option for inputs that contain nan.

    Raises
    ------
    NpylstmError
        If it is neither ``"pass"`` nor ``"raise"``.
    """
    if nan not in ("pass", "raise"):
        raise NpylstmError(f"nan: expected 'pass' or 'raise', got {nan!r}")
    return nan


def _check_nan(inputs: Mapping[str, Array]) -> None:
    """Check that inputs contain no nan."""
    for name, array in inputs.items():
        if np.isnan(array).any():
            at = tuple(int(k) for k in np.argwhere(np.isnan(array))[0])
            raise ShapeError(f"{name}: expected numbers, got nan at {at}")


def _by_name(x: Inputs, tensors: Sequence[TensorSpec]) -> dict[str, Any]:
    names = [t.name for t in tensors]
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ShapeError(f"inputs: expected {names}, got {sorted(map(str, x))}")
        return dict(x)
    if len(names) == 1:
        return {names[0]: x}
    if not isinstance(x, (list, tuple)) or len(x) != len(names):
        got = f"{len(x)} arrays" if isinstance(x, (list, tuple)) else type(x).__name__
        raise ShapeError(f"inputs: expected {len(names)} arrays for {names}, got {got}")
    return dict(zip(names, x, strict=True))


def bind_state(state: StateArrays | None, expected: StateShapes, batch: int, dtype: str) -> State:
    """Check a state, or return the zero initial state.

    Raises
    ------
    StateError
        With the call, the state and the expectation.
    """
    if state is None:
        return zero_state(expected, batch, dtype)
    if not isinstance(state, Mapping) or set(state) != set(expected):
        got = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise StateError(f"state: expected layers {sorted(expected)}, got {got}")
    bound: State = {}
    for layer, shapes in expected.items():
        entries = state[layer]
        if not isinstance(entries, Mapping) or set(entries) != set(shapes):
            got = (
                sorted(map(str, entries))
                if isinstance(entries, Mapping)
                else type(entries).__name__
            )
            raise StateError(f"state of {layer}: expected {sorted(shapes)}, got {got}")
        bound[layer] = {}
        for name, shape in shapes.items():
            label = f"state {layer}/{name}"
            try:
                array = numbers(entries[name], dtype, label)
            except ShapeError as error:
                raise StateError(str(error)) from None
            if array.shape != (batch, *shape):
                raise StateError(f"{label}: expected shape {(batch, *shape)}, got {array.shape}")
            bound[layer][name] = array
    return bound


def bind_mask(
    mask: npt.ArrayLike | None,
    lengths: npt.ArrayLike | None,
    spec: ModelSpec,
    inputs: Mapping[str, Array],
    batch: int,
) -> Array | None:
    """Convert a mask or lengths to booleans ``(batch, steps)``: True where a step is not masked.

    Raises
    ------
    ShapeError
        With the value and the expectation.
    """
    if mask is None and lengths is None:
        return None
    what = "lengths" if mask is None else "mask"
    if mask is not None and lengths is not None:
        raise ShapeError("mask: expected it or lengths, not both")
    steps = _common_steps(what, spec, inputs)
    if lengths is not None:
        ends = np.asarray(lengths)
        if ends.shape != (batch,) or ends.dtype.kind not in "iu":
            raise ShapeError(
                f"lengths: expected {batch} integers, got {ends.dtype} of shape {ends.shape}"
            )
        if ends.size and not (ends.min() >= 1 and ends.max() <= steps):
            raise ShapeError(f"lengths: expected 1 to {steps}, got {ends.min()} to {ends.max()}")
        return np.asarray(np.arange(steps) < ends[:, None])
    given = np.asarray(mask)
    if given.shape != (batch, steps) or given.dtype != np.bool_:
        raise ShapeError(
            f"mask: expected booleans ({batch}, {steps}), got {given.dtype} of shape {given.shape}"
        )
    return given


def _common_steps(what: str, spec: ModelSpec, inputs: Mapping[str, Array]) -> int:
    """Return the number of steps of the first input; check that all recurrent layers read them."""
    kinds = {layer.name: layer.layer for layer in spec.layers if layer.layer.uses_mask}
    if not kinds:
        raise ShapeError(f"{what}: the model has no recurrent layer")
    first, steps = spec.inputs[0], 0
    for edge in spec.edges:
        if edge.layer not in kinds:
            continue
        layer = kinds[edge.layer]
        if layer.own_mask(edge.inputs) is not None:
            raise ShapeError(f"{what}: {edge.layer} has a mask that the model makes")
        shape = spec.shapes[edge.inputs[0]]
        if layer.batch_size(shape) != BATCH:
            raise ShapeError(
                f"{what}: {edge.layer} reads {format_shape(shape)}, whose sequences are not the "
                "samples of the batch"
            )
        symbol = shape[layer.time_axis]
        if symbol not in first.shape:
            raise ShapeError(
                f"{what}: {edge.layer} reads {format_shape(shape)}, whose steps are not those "
                f"of the input {first}"
            )
        steps = int(inputs[first.name].shape[first.shape.index(symbol)])
    return steps


def numbers(value: Any, dtype: str, label: str) -> Array:
    """Convert an array-like to a contiguous array of real numbers.

    Raises
    ------
    ShapeError
        If it is ragged, or holds something else.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{label}: expected an array, got ragged {type(value).__name__}") from None
    if array.dtype.kind not in "fiub":
        raise ShapeError(f"{label}: expected real numbers, got {array.dtype}")
    return np.ascontiguousarray(array, dtype) if array.ndim else array.astype(dtype)


def _expect_integers(array: Array, label: str) -> None:
    """Check for integers that the floating-point type represents exactly."""
    # A larger integer may have been rounded to 2**24 itself, which is therefore none of them.
    limit = 2 ** (np.finfo(array.dtype).nmant + 1) - 1
    wrong = ~((np.abs(array) <= limit) & (array == np.floor(array)))
    if wrong.any():
        at = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise ShapeError(f"{label}: expected integers up to {limit}, got {array[at]:g} at {at}")


def bind_functions(spec: ModelSpec, custom: Mapping[str, Function]) -> ModelSpec:
    """Bind the functions of custom layers.

    Raises
    ------
    UnsupportedError
        With all layers that have no function.
    NpylstmError
        If a function belongs to no layer.
    """
    names = (named.layer.user_function for named in spec.layers)
    wanted = {name for name in names if name is not None}
    unknown = [name for name in custom if name not in wanted]
    if unknown:
        known = ", ".join(sorted(wanted)) or "none"
        raise NpylstmError(
            f"custom: the model has no layer of that name: {unknown[0]!r}; it has {known}"
        )
    layers, missing = [], []
    for named in spec.layers:
        layer, name = named.layer, named.layer.user_function
        if name is not None and name in custom:
            named = replace(named, layer=layer.with_function(custom[name]))
        elif name is not None and layer.function is None:
            missing.append(
                f"{named.name}: is computed by a function that the file does not hold; give it: "
                f"custom={{{name!r}: function}}, or --custom {shlex.quote(name)}=module:function"
            )
        layers.append(named)
    if missing:
        raise UnsupportedError(missing)
    return replace(spec, layers=tuple(layers)) if custom else spec
