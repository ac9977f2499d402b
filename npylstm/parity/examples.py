"""One run to be explained: its inputs, and the other program's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.graph.state import State, take_rows
from npylstm.ops.shapes import BATCH
from npylstm.runtime.binding import bind, bind_mask, bind_state
from npylstm.spec import Case, ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.runtime.binding import Inputs, StateArrays

__all__ = ["Example", "bind_case", "bind_example", "name_outputs"]

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Example:
    """A run, checked and complete.

    Attributes
    ----------
    inputs, outputs
        Arrays by name; the outputs are those of the other program.
    state
        The initial state of every recurrent call; used only if ``has_state``.
    mask
        Which steps are not masked, (batch, steps); None if no step is masked.
    has_state
        Whether the caller passed an initial state.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    state: State
    mask: Array | None = None
    has_state: bool = False

    def rows(self, spec: ModelSpec, rows: Sequence[int]) -> Example:
        """Return the example with these samples only."""
        index = list(rows)
        inputs = {t.name: _take(self.inputs[t.name], t.shape, index) for t in spec.inputs}
        outputs = {t.name: _take(self.outputs[t.name], t.shape, index) for t in spec.output_specs}
        state = take_rows(self.state, index)
        mask = None if self.mask is None else self.mask[index]
        return replace(self, inputs=inputs, outputs=outputs, state=state, mask=mask)


def bind_example(
    spec: ModelSpec,
    inputs: Inputs,
    outputs: Any,
    state: StateArrays | None = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
) -> Example:
    """Validate a user's arrays as :meth:`npylstm.Model.predict` does.

    Raises
    ------
    ShapeError, StateError
        If an array does not fit; the message has its name, its shape and the expected one.
    """
    bound = bind(inputs, spec.inputs, spec.dtype)
    batch = spec.count_samples(bound)
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
    """Validate a recorded case."""
    return bind_example(spec, case.inputs, case.outputs, case.state or None, case.lengths)


def name_outputs(spec: ModelSpec, outputs: Any) -> dict[str, Any]:
    """Return outputs by name, from one array, a list in the model's order, or a mapping.

    Raises
    ------
    ShapeError
        If their number or names are not the model's.
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
