"""The base class of operations, and their configs as JSON.

An operation is a frozen dataclass: its fields are the config. Its methods return the shapes of
its weights, outputs and state, and compute the outputs. It holds no weights and no state; both
are arguments.

Shapes are tuples of integers and symbols. ``"batch"`` marks the batch axis; other symbols
(``"steps"``) represent sizes that are known only when the model is called.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

import numpy as np

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap, check_batch
from npylstm.ops.declarations import Declarations
from npylstm.ops.readers import READERS
from npylstm.ops.shapes import Shape

if TYPE_CHECKING:
    pass

__all__ = ["Operation"]

_Own = TypeVar("_Own", bound="Operation")

_FACTORS = ("kernel", "recurrent_kernel", "projection")  # roles of weights in products


@dataclasses.dataclass(frozen=True)
class Operation(Declarations):
    """A kind of layer with its config.

    Subclasses are frozen dataclasses whose fields are the config, and override methods. A field has
    a type of :data:`npylstm.ops.readers.READERS`, or is another operation, or has ``to_json`` and
    ``from_json`` itself.
    """

    kind: ClassVar[str]
    uses_mask: ClassVar[bool] = False  # whether forward has an argument ``mask``
    # Whether products read weights of 8 or 16 bits as they are stored; others read them decoded.
    reads_stored_weights: ClassVar[bool] = False

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by name, in the order of the file."""
        return {}

    def weight_role(self, name: str) -> str | None:
        """Return the role of a weight, from its name; None for a role that is not listed here.

        ``kernel`` multiplies the input; with 2 axes it is ``x @ kernel`` over the last axis, with 3
        (window, features, units) it slides over the steps. ``bias`` is added to this product.
        ``recurrent_kernel`` and ``recurrent_bias`` belong to the product with the state. Further
        products have ``projection`` and ``projection_bias``. A ``peephole`` multiplies the cell
        state element by element. A normalization has ``mean``,
        ``variance``, ``scale`` and ``offset``; ``table`` has one row for each id.
        """
        return None

    @property
    def weight_roles(self) -> dict[str, str]:
        """The roles of the weights that the operation has, by their names."""
        roles = {name: self.weight_role(name) for name in self.weight_shapes()}
        return {name: role for name, role in roles.items() if role is not None}

    def weight_with_role(self, role: str) -> str | None:
        """Return the name of the only weight with a role; None if there are none or several.

        None for a recurrent operation, too, because its weights belong to :meth:`recurrent_parts`,
        and for a wrapper.
        """
        if self.is_recurrent or self.innermost is not self:
            return None
        names = [name for name, own in self.weight_roles.items() if own == role]
        return names[0] if len(names) == 1 else None

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the carried state by name, without the batch axis."""
        return {}

    def batch_size(self, shape: Sequence[Any]) -> Any:
        """Return the batch size from the shape of the first input.

        The first axis, except for recurrent operations whose first axis is time.
        """
        return shape[0]

    def initial_states(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Return those of the inputs that are initial states."""
        return ()

    def parts(self) -> Mapping[str, Operation]:
        """Return the operations that compute this one, by the prefix of their weights and states.

        Each part computes some columns of the output. Empty if parts alone do not suffice.
        """
        return {"": self}

    def inputs_of_parts(self, inputs: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Return the inputs of each part."""
        return (inputs,)

    @property
    def time_axis(self) -> int:
        """The axis of the first input that a recurrent operation runs over."""
        return 1

    @property
    def innermost(self) -> Operation:
        """The operation itself, without wrappers that apply it to every step."""
        return self

    @property
    def activations(self) -> Mapping[str, Activation]:
        """The config fields that are activations, by name.

        ``activation`` is that of the output or of a cell's candidate, ``recurrent_activation`` that
        of its gates.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Activation)}

    def with_activations(self: _Own, activations: Mapping[str, Activation]) -> _Own:
        """Return the operation with some activations replaced, by the names of the fields."""
        return dataclasses.replace(self, **activations)

    def returning_last_step(self) -> Operation | None:
        """Return the operation with only the last step as output; None if nothing would change."""
        return None

    def without_returned_state(self) -> Operation | None:
        """Return the operation without its state as output; None if nothing would change."""
        return None

    def output_names(self) -> tuple[str, ...]:
        """Return the suffixes of the output tensors; the main output has the empty one."""
        return ("",)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes of the outputs for the given input shapes.

        Raises
        ------
        FormatError
            If the operation does not accept such inputs, or would mix the samples of a batch.
        """
        shapes = self.infer_shapes(inputs)
        if any(isinstance(size, str) for shape in inputs for size in shape):
            for axes, shape in zip(self.axis_map(inputs), shapes, strict=True):
                check_batch(self.kind, axes, inputs, shape)
        return shapes

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes of the outputs, without a check of the batch axis.

        Raises
        ------
        FormatError
            If the operation does not accept such inputs.
        """
        raise NotImplementedError

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        """Return, for each output, the input axes that its axes come from.

        Parameters
        ----------
        shapes
            Of the inputs, as :meth:`infer_shapes` accepted them.
        """
        raise NotImplementedError

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Return about how many multiplications the products of a call have.

        Parameters
        ----------
        shapes
            Of the inputs.
        """
        roles, sizes = self.weight_roles, self.weight_shapes()
        matrices = [sizes[name] for name, role in roles.items() if role in _FACTORS]
        if not matrices:
            return 0
        positions = math.prod(shapes[0]) // matrices[0][-2]
        return positions * sum(map(math.prod, matrices))

    def sequential_steps(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Return the number of time steps that a call computes one after another."""
        return shapes[0][self.time_axis] if self.is_recurrent else 1

    @property
    def accepted(self) -> str:
        """The accepted values of the first input, for error messages."""
        return "numbers"

    def check_values(self, x: Array) -> None:
        """Check the values of the first input.

        Raises
        ------
        ShapeError
            With the first value that is not :attr:`accepted`.
        """

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Arrange the weights for :meth:`forward`, once, when the model is loaded."""
        return dict(weights)

    def forward(
        self,
        packed: Mapping[str, Array],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Compute outputs and the state after the last step, in NumPy.

        Parameters
        ----------
        packed
            The result of :meth:`pack`.
        inputs
            Arrays of one floating-point type, shapes as :meth:`output_shapes` accepted.
        state
            One array ``(batch, *shape)`` per entry of :meth:`state_shapes`.

        Returns
        -------
        outputs, state
            One array per entry of :meth:`output_names`; the new state.
        """
        raise NotImplementedError

    def prepare(
        self, packed: Mapping[str, Array], inputs: Sequence[Array]
    ) -> tuple[list[Callable[[], object]], tuple[Array, ...]]:
        """Return calls that compute outputs from fixed input arrays, again and again.

        The operation must have no state. Shapes are checked here, once.

        Parameters
        ----------
        packed
            The result of :meth:`pack`.
        inputs
            Arrays that are filled before each use.

        Returns
        -------
        calls, outputs
            Functions to call in order, and the arrays that they fill.
        """
        made, _ = self.forward(packed, inputs, {})
        if not inputs or (
            self.moves_elements and all(np.may_share_memory(y, inputs[0]) for y in made)
        ):
            return [], made  # constants, and views
        outputs = tuple(np.array(y) for y in made)

        def run() -> None:
            for target, y in zip(outputs, self.forward(packed, inputs, {})[0], strict=True):
                target[...] = y

        return [run], outputs

    def trace(
        self,
        packed: Mapping[str, Array],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        mask: Array | None = None,
    ) -> Any:
        """Run a recurrent operation and return all values that it computes at every step.

        Arguments as for :meth:`forward`; ``mask`` (batch, steps) is that of the call.

        Returns
        -------
        NamedTuple or dict
            Arrays ``(batch, steps, ...)`` by the input's step; for several parts by their names.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return the whole config, defaults included, as JSON values."""
        return {f.name: _to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Operation:
        """Return the operation of a config.

        Raises
        ------
        FormatError
            If a key is unknown or missing, or a value has the wrong type.
        """
        hints = _types_of(cls)  # type: ignore[arg-type]  # a class can be hashed
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(config) - set(fields))
        if unknown:
            raise FormatError(f"unknown config key {unknown[0]!r}, expected {sorted(fields)}")
        values = {}
        for name, field in fields.items():
            if name in config:
                if hints[name] is Operation:
                    values[name] = cls.read_layer(name, config[name])
                elif hints[name] in READERS:
                    values[name] = READERS[hints[name]](name, config[name])
                else:
                    values[name] = hints[name].from_json(config[name])
            elif field.default is dataclasses.MISSING:
                raise FormatError(f"config key {name!r} is missing")
        return cls(**values)

    @staticmethod
    def read_layer(name: str, value: object) -> Operation:
        """Return the operation inside a config, of any kind in :mod:`npylstm.ops`."""
        from npylstm.ops import operation_from_json

        if not isinstance(value, Mapping):
            raise FormatError(f"{name}: expected a layer, got {value!r:.80}")
        try:
            return operation_from_json(value.get("kind"), value.get("config"))
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None


@functools.cache
def _types_of(kind: type[Operation]) -> dict[str, Any]:
    """Return the types of the fields of a config."""
    return get_type_hints(kind, localns={"Operation": Operation})


def _to_json(value: Any) -> Any:
    if isinstance(value, Operation):
        return {"kind": value.kind, "config": value.to_json()}
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, float) and math.isinf(value):  # JSON has no such number
        return str(value)
    return [_to_json(v) for v in value] if isinstance(value, tuple) else value
