"""One run to be explained: what went in, and what somebody else's program gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.ops.shapes import BATCH
from npylstm.runtime.binding import bind, bind_mask, bind_state
from npylstm.spec import Case, ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.runtime.binding import Inputs, NewState, StateArrays

__all__ = ["Example", "batch_axes", "bind_case", "bind_example", "name_outputs"]

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Example:
    """A run, checked and complete.

    Attributes
    ----------
    inputs, outputs
        Arrays by name; the outputs are those of the other program.
    state
        The initial state of every recurrent call; it counts only where one was given.
    mask
        Which steps count (batch, steps), or None for all.
    has_state
        Whether an initial state was given.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    state: NewState
    mask: Array | None = None
    has_state: bool = False

    def rows(self, spec: ModelSpec, rows: Sequence[int]) -> Example:
        """Return these samples alone."""
        index = list(rows)
        inputs = {t.name: _take(self.inputs[t.name], t.shape, index) for t in spec.inputs}
        outputs = {t.name: _take(self.outputs[t.name], t.shape, index) for t in spec.output_specs}
        state = {k: {n: a[index] for n, a in entries.items()} for k, entries in self.state.items()}
        mask = None if self.mask is None else self.mask[index]
        return replace(self, inputs=inputs, outputs=outputs, state=state, mask=mask)

    def astype(self, dtype: str) -> Example:
        """Return the same run with inputs and state of another element type."""
        inputs = {k: x.astype(dtype) for k, x in self.inputs.items()}
        state = {k: {n: a.astype(dtype) for n, a in v.items()} for k, v in self.state.items()}
        return replace(self, inputs=inputs, state=state)

    def case(self) -> Case:
        """Return the inputs and the state as a recorded case, without its mask."""
        return Case(self.inputs, {}, self.state)


def batch_axes(spec: ModelSpec) -> dict[str, int | None]:
    """Return the batch axis of every tensor; None where it has none of its own."""
    return {
        name: shape.index(BATCH) if BATCH in shape else None for name, shape in spec.shapes.items()
    }


def bind_example(
    spec: ModelSpec,
    inputs: Inputs,
    outputs: Any,
    state: StateArrays | None = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
) -> Example:
    """Check arrays from a user, as :meth:`npylstm.Model.predict` does.

    Raises
    ------
    ShapeError, StateError
        Naming the array, its shape and the expected one.
    """
    bound = bind(inputs, spec.inputs, spec.dtype)
    first = spec.inputs[0]
    batch = int(bound[first.name].shape[first.shape.index(BATCH)])
    carried = bind_state(state, spec.state_shapes(), batch, spec.dtype)
    moves = bind_mask(mask, lengths, spec, bound, batch)
    given = name_outputs(spec, outputs)
    for name, array in given.items():
        if isinstance(array, np.ma.MaskedArray):
            raise ShapeError(f"output {name!r}: masked arrays are not compared; fill it first")
    named = {k: np.asarray(v) for k, v in given.items()}
    for name, array in named.items():
        if array.dtype.kind not in "fiub":
            raise ShapeError(f"output {name!r}: expected real numbers, got {array.dtype}")
        if array.dtype.kind != "f":
            named[name] = array.astype(np.float64)
    return Example(bound, named, carried, moves, state is not None)


def bind_case(spec: ModelSpec, case: Case) -> Example:
    """Check a recorded case."""
    return bind_example(spec, case.inputs, case.outputs, case.state or None, case.lengths)


def name_outputs(spec: ModelSpec, outputs: Any) -> dict[str, Any]:
    """Name outputs that were given as one array, a list in order, or by name.

    Raises
    ------
    ShapeError
        If there are more or fewer than the model has, or others.
    """
    names = list(spec.outputs)
    if isinstance(outputs, Mapping):
        if set(outputs) != set(names):
            raise ShapeError(f"outputs: expected {names}, got {sorted(map(str, outputs))}")
        return {name: outputs[name] for name in names}
    if len(names) == 1:
        single = isinstance(outputs, (list, tuple)) and len(outputs) == 1
        return {names[0]: outputs[0] if single else outputs}
    if not isinstance(outputs, (list, tuple)) or len(outputs) != len(names):
        got = len(outputs) if isinstance(outputs, (list, tuple)) else type(outputs).__name__
        raise ShapeError(f"outputs: expected {len(names)} arrays for {names}, got {got}")
    return dict(zip(names, outputs, strict=True))


def _take(array: Array, shape: Sequence[Any], rows: list[int]) -> Array:
    taken: Array = np.take(array, rows, axis=shape.index(BATCH)) if BATCH in shape else array
    return taken
