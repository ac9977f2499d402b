"""The base class of recurrent layers: direction, outputs, carried state, masks."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.activations import TANH, Activation
from npylstm.arrays import Array, zeros
from npylstm.blas import MOST_IN_ONE_THREAD, product
from npylstm.errors import FormatError
from npylstm.integer_matrix import IntegerMatrix
from npylstm.ops.axis_map import At, AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_feature_activation, check_features, mismatch, positive
from npylstm.ops.shapes import BATCH, STEPS, Shape, format_shape

__all__ = ["Recurrent"]

_ROLES = {
    "W": "kernel",
    "U": "recurrent_kernel",
    "b": "bias",
    "rb": "recurrent_bias",
    "P": "projection",
    "p": "peephole",
}


def recurrent_axes(layer: Any, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
    """Return the axis maps of all outputs of a recurrent layer, or of a bidirectional one."""
    time, batch = (0, 1) if layer.time_major else (1, 0)
    states = range(1, 1 + len(layer.initial_states(shapes)))
    samples: tuple[At, ...] = ((0, batch), *((k, 0) for k in states))
    steps: tuple[At, ...] = ((0, time),)
    if layer.masked:
        mask = len(shapes) - 1
        samples, steps = (*samples, (mask, 0)), (*steps, (mask, 1))
    made = []
    for name in layer.output_names():
        sequence = layer.return_sequences and name in ("", "backward")
        sources: tuple[tuple[At, ...], ...] = (samples, ())
        if sequence:
            sources = (steps, samples, ()) if layer.time_major else (samples, steps, ())
        last = frozenset() if sequence else frozenset(steps)
        made.append(AxisMap(sources, {(0, 2): "sums"}, frozenset(steps), last))
    return tuple(made)


def _flag(default: bool = False) -> Any:
    return dataclasses.field(default=default, kw_only=True)


@dataclass(frozen=True)
class Recurrent(Operation):
    """A recurrent layer; a subclass defines the cell.

    Parameters
    ----------
    features, units
        Sizes of the input and of the hidden state.
    activation
        Of the candidate.
    use_bias
        Whether there are biases.
    return_sequences
        Return ``h`` of every step ``(batch, steps, units)`` rather than the last, ``(batch,
        units)``.
    return_state
        Return the state after the last step as further outputs, in the order of the state.
    go_backwards
        Read the steps from the last to the first; a returned sequence has this order, too.
    stateful
        Whether the framework carried the state between calls. Not used here: a session does this.
    time_major
        Input and returned sequence are ``(steps, batch, features)``.
    masked
        The last input is a mask ``(batch, steps)``: where it is zero the layer keeps its state.
    zero_output_for_mask
        The output at masked steps, and after a sequence's length: zeros (PyTorch's packed
        sequences), or the output of the previous step (Keras; zeros at the first step).
    clip
        Limit the inputs of the gates' and the candidate's activations to -clip and clip.

    The first input is the sequence. Initial states may follow it, as one tensor each; then the
    layer carries no state.
    """

    gates: ClassVar[tuple[str, ...]]
    states: ClassVar[tuple[str, ...]] = ("h",)  # h is first
    record: ClassVar[type[tuple[Array, ...]]]

    features: int
    units: int
    activation: Activation = TANH
    use_bias: bool = _flag(True)
    return_sequences: bool = _flag()
    return_state: bool = _flag()
    go_backwards: bool = _flag()
    stateful: bool = _flag()
    time_major: bool = _flag()
    masked: bool = _flag()
    zero_output_for_mask: bool = _flag()
    clip: float | None = dataclasses.field(default=None, kw_only=True)

    uses_mask: ClassVar[bool] = True
    is_recurrent: ClassVar[bool] = True
    keeps_relative_errors: ClassVar[bool] = True
    uses_matrix_products: ClassVar[bool] = True
    reads_stored_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive("features", self.features)
        positive("units", self.units)
        check_feature_activation("activation", self.activation)
        if self.clip is not None and not self.clip > 0:
            raise FormatError(f"clip: expected a positive number, got {self.clip}")

    @property
    def output_size(self) -> int:
        """Size of the hidden state."""
        return self.units

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            f"W_{g}": (self.features, self.units) for g in self.gates
        }
        shapes |= {f"U_{g}": (self.output_size, self.units) for g in self.gates}
        if self.use_bias:
            shapes |= {f"b_{g}": (self.units,) for g in self.gates}
        return shapes

    def weight_role(self, name: str) -> str | None:
        return _ROLES.get(name.partition("_")[0])

    def scratch_size(self, shapes: Sequence[tuple[int, ...]]) -> int:
        batch, steps, _ = shapes[0]
        return batch * steps * len(self.gates) * self.units

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.output_size,)}

    def initial_states(self, inputs: Sequence[Any]) -> Sequence[Any]:
        return inputs[1:-1] if self.masked else inputs[1:]

    def own_mask(self, inputs: Sequence[Any]) -> Any:
        return inputs[-1] if self.masked else None

    def recurrent_parts(self) -> Mapping[str, Recurrent]:
        return {"": self}

    def with_recurrent_parts(self, parts: Mapping[str, Recurrent]) -> Recurrent:
        return parts.get("", self)

    def batch_size(self, shape: Sequence[Any]) -> Any:
        return shape[1] if self.time_major else shape[0]

    @property
    def time_axis(self) -> int:
        return 0 if self.time_major else 1

    @property
    def returns_sequence(self) -> bool:
        return self.return_sequences

    @property
    def expected_input(self) -> Shape:
        first = (STEPS, BATCH) if self.time_major else (BATCH, STEPS)
        return (*first, self.features)

    @property
    def mask_input_count(self) -> int:
        return 1

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return (0,) if self.masked else ()

    def with_masks(self, which: Collection[int]) -> Operation:
        return dataclasses.replace(self, masked=True)

    def returning_last_step(self) -> Operation | None:
        if not self.return_sequences or self.go_backwards:
            return None
        return dataclasses.replace(self, return_sequences=False)

    def without_returned_state(self) -> Operation | None:
        return dataclasses.replace(self, return_state=False) if self.return_state else None

    def output_names(self) -> tuple[str, ...]:
        return ("", *self.state_shapes()) if self.return_state else ("",)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected a sequence, got no input")
        shape = inputs[0]
        check_features(shape, self.features, rank=3)
        batch = shape[1] if self.time_major else shape[0]
        states: list[Shape] = [(batch, *size) for size in self.state_shapes().values()]
        if self.masked:
            wanted = (batch, shape[0] if self.time_major else shape[1])
            if len(inputs) < 2 or inputs[-1] != wanted:
                got = format_shape(inputs[-1]) if len(inputs) > 1 else "none"
                message = f"expected a mask {format_shape(wanted)}, got {got}"
                raise mismatch(message, [wanted], inputs[-1:])
        begins = self.initial_states(inputs)
        if begins and list(begins) != states:
            got = ", ".join(map(format_shape, begins))
            message = f"expected a state of {', '.join(map(format_shape, states))}, got {got}"
            raise mismatch(message, states, begins)
        size = self.output_size
        main = (*shape[:2], size) if self.return_sequences else (batch, size)
        return (main, *states) if self.return_state else (main,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        made = recurrent_axes(self, shapes)
        if self.go_backwards:
            return tuple(axes.mixing("reads backwards (go_backwards)") for axes in made)
        if self.masked and not self.zero_output_for_mask:
            # The state does not hold the last output.
            repeats = "repeats its last output at masked steps, which the state does not hold,"
            at = (len(shapes) - 1, 1)
            return tuple(axes._replace(mixed={**axes.mixed, at: repeats}) for axes in made)
        return made

    def forward(
        self,
        packed: Mapping[str, Array],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        mask: Array | None = None,
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = self._batch_major(inputs[0])
        batch, steps, _ = x.shape
        given = tuple(self.initial_states(inputs))
        carried = given or self._initial(state, batch, x.dtype)
        mask = self._mask(inputs, mask)
        if mask is not None or not steps:
            main = np.zeros((batch, self.output_size), x.dtype)
        if self.return_sequences:
            sequence = np.empty((batch, steps, self.output_size), x.dtype)
        for k, (t, _, new) in enumerate(self._steps(packed, x, carried, mask)):
            carried, h = new, new[0]
            if mask is not None:
                still = np.zeros_like(h) if self.zero_output_for_mask else main
                h = np.where(mask[:, t, None], h, still)
            main = h
            if self.return_sequences:
                sequence[:, k] = h
        if self.return_sequences:
            main = self._batch_major(sequence)
        after = dict(zip(self.states, carried, strict=True)) if state else {}
        return (main, *carried) if self.return_state else (main,), after

    def trace(
        self,
        packed: Mapping[str, Array],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        mask: Array | None = None,
    ) -> Any:
        x = self._batch_major(inputs[0])
        carried = tuple(self.initial_states(inputs)) or self._initial(state, len(x), x.dtype)
        mask = self._mask(inputs, mask)
        kept: list[Array] = []
        for t, values, _ in self._steps(packed, x, carried, mask):
            kept = kept or [np.empty((*x.shape[:2], v.shape[-1]), x.dtype) for v in values]
            for array, value in zip(kept, values, strict=True):
                array[:, t] = value
        return self.record(*kept)

    def _initial(self, state: Mapping[str, Array], batch: int, dtype: Any) -> tuple[Array, ...]:
        """Return the carried state; zeros if the call carries none."""
        if state:
            return tuple(state[name] for name in self.states)
        return tuple(zeros(self.state_shapes(), batch, dtype).values())

    def _mask(self, inputs: Sequence[Array], mask: Array | None) -> Array | None:
        """Return the mask to apply: the layer's own input, else that of the call."""
        return inputs[-1] != 0 if self.masked else mask

    def _batch_major(self, x: Array) -> Array:
        """Swap the first two axes of a time-major array, in either direction."""
        return x.swapaxes(0, 1) if self.time_major else x

    def _steps(
        self,
        packed: Mapping[str, Array],
        x: Array,
        state: tuple[Array, ...],
        mask: Array | None,
    ) -> Iterator[tuple[int, tuple[Array, ...], tuple[Array, ...]]]:
        """Yield for each step t, the values that the cell computed, and the new state."""
        for t, z in self._input_parts(packed, x):
            values, new = self.step(packed, z, state)
            if mask is not None:  # masked samples keep their state
                moves = mask[:, t, None]
                new = tuple(np.where(moves, b, a) for a, b in zip(state, new, strict=True))
            state = new
            yield t, values, state

    def _input_parts(self, packed: Mapping[str, Array], x: Array) -> Iterator[tuple[int, Array]]:
        """Yield each step, in the layer's order, and the input's part of its gates.

        It is computed for many steps at once, but not for more than fit in the cache.
        """
        W, b = packed["W"], packed["b"]
        batch, steps, features = x.shape
        if steps == 1:
            yield 0, product(x[:, 0], W) + b
            return
        gates = len(self.gates) * self.units
        rows = max(64, MOST_IN_ONE_THREAD // (max(features, 8) * gates))
        size = max(1, rows // max(1, batch))
        starts = range(0, steps, size)
        for start in reversed(starts) if self.go_backwards else starts:
            block = x[:, start : start + size]
            z = product(block.reshape(-1, features), W) + b
            z = z.reshape(*block.shape[:2], gates)
            times = range(block.shape[1])
            for k in reversed(times) if self.go_backwards else times:
                yield start + k, z[:, k]

    @abstractmethod
    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Compute one time step.

        Parameters
        ----------
        packed
            The result of :meth:`pack`.
        z
            The input's part of all gates, biases included.
        state
            As :attr:`states` lists it.

        Returns
        -------
        values, state
            One array per field of :attr:`record`; the new state.
        """

    def clipped(self, z: Array) -> Array:
        """Limit the inputs of activations."""
        return z if self.clip is None else np.clip(z, -self.clip, self.clip)

    def concatenate_gates(
        self, weights: Mapping[str, Array], letter: str, order: Sequence[str] = ()
    ) -> Any:
        """Concatenate one letter's arrays of all gates; zeros where there are no biases."""
        first = weights[f"W_{self.gates[0]}"]
        if letter == "b" and not self.use_bias:
            return np.zeros(len(self.gates) * self.units, first.dtype)
        parts: Any = [weights[f"{letter}_{g}"] for g in order or self.gates]
        if isinstance(parts[0], IntegerMatrix):
            return IntegerMatrix.concatenated(parts)
        return np.concatenate(parts, axis=-1)
