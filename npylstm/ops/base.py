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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap, check_batch
from npylstm.ops.readers import READERS
from npylstm.ops.shapes import Shape

if TYPE_CHECKING:
    from npylstm.ops.conventions import Convention
    from npylstm.ops.recurrent import Recurrent

__all__ = ["Operation"]

_Own = TypeVar("_Own", bound="Operation")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A kind of layer with its config.

    Subclasses are frozen dataclasses whose fields are the config, and override methods. A field has
    a type of :data:`npylstm.ops.readers.READERS`, or is another operation.
    """

    kind: ClassVar[str]
    uses_mask: ClassVar[bool] = False  # whether forward has an argument ``mask``
    is_recurrent: ClassVar[bool] = False  # whether it runs over a time axis with carried state
    keeps_shape: ClassVar[bool] = False  # whether the main output has the first input's shape
    moves_elements: ClassVar[bool] = False  # whether its outputs hold only input elements and zeros
    accepts_fewer_shapes: ClassVar[bool] = False  # whether frameworks accept more input shapes
    function: ClassVar[Callable[..., Any] | None] = None  # the user's function, once bound
    returns_input: ClassVar[bool] = False  # whether the output is the first input itself
    # Whether small outputs have small rounding errors if small inputs have; False is always safe.
    keeps_relative_errors: ClassVar[bool] = False
    # Whether forward uses packed arrays only as ``x @ matrix`` (2 axes) or ``x + vector`` (1 axis).
    uses_matrix_products: ClassVar[bool] = False

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by name, in the order of the file."""
        return {}

    @property
    def weight_roles(self) -> Mapping[str, str]:
        """The role of each weight, by its name; weights of other roles are left out.

        ``kernel`` multiplies the input; with 2 axes it is ``x @ kernel`` over the last axis, with 3
        (window, features, units) it slides over the steps. ``bias`` is added to this product.
        ``recurrent_kernel`` and ``recurrent_bias`` belong to the product with the state. A
        normalization has ``mean``, ``variance``, ``scale`` and ``offset``; ``table`` has one row
        for each id.
        """
        return {}

    def weight_with_role(self, role: str) -> str | None:
        """Return the name of the only weight with a role; None if there are none or several."""
        roles = self.weight_roles
        names = [name for name in self.weight_shapes() if roles.get(name) == role]
        return names[0] if len(names) == 1 else None

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the carried state by name, without the batch axis."""
        return {}

    def batch_size(self, shape: Sequence[Any]) -> Any:
        """Return the batch size from the shape of the first input."""
        return shape[0]

    def initial_states(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Return those of the inputs that are initial states."""
        return ()

    def own_mask(self, inputs: Sequence[Any]) -> Any:
        """Return the input that masks steps of a recurrent operation; None if there is none."""
        return None

    @property
    def stateful(self) -> bool:
        """Whether the framework carried the state of a recurrent operation between calls."""
        return False

    @property
    def user_function(self) -> str | None:
        """The name of the user's function that the operation calls; None if it calls none."""
        return None

    def with_function(self, function: Callable[..., Any]) -> Operation:
        """Return the operation with the function of the name :attr:`user_function`."""
        raise NotImplementedError

    def parts(self) -> Mapping[str, Operation]:
        """Return the operations that compute this one, by the prefix of their weights and states.

        Each part computes some columns of the output. Empty if parts alone do not suffice.
        """
        return {"": self}

    def recurrent_parts(self) -> Mapping[str, Recurrent]:
        """Return the recurrent layers that this operation runs, by the prefix of their weights.

        Their outputs may be merged in any way: see :meth:`merging`.
        """
        return {}

    def with_recurrent_parts(self, parts: Mapping[str, Recurrent]) -> Operation:
        """Return the operation with these recurrent layers instead; the others are the same."""
        raise NotImplementedError

    def inputs_of_parts(self, inputs: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Return the inputs of each part."""
        return (inputs,)

    def merging(self, rank: int) -> Operation | None:
        """Return the operation that merges the outputs, of ``rank`` axes, of recurrent parts.

        None if there is one part, or if their outputs stay separate.
        """
        return None

    @property
    def time_axis(self) -> int:
        """The axis of the first input that a recurrent operation runs over."""
        return 1

    @property
    def returns_sequence(self) -> bool:
        """Whether it is recurrent and its main output has the axis of the steps."""
        return False

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

    @property
    def expected_input(self) -> Shape | None:
        """The usual shape of the first input; it may have more axes or fewer.

        Sizes that the config does not determine are symbols. None if no shape is usual.
        """
        return None

    def with_activations(self: _Own, activations: Mapping[str, Activation]) -> _Own:
        """Return the operation with some activations replaced, by the names of the fields."""
        return dataclasses.replace(self, **activations)

    @property
    def vocabulary_size(self) -> int | None:
        """The operation reads integer ids below this number; None if it reads no ids."""
        return None

    @property
    def masked_value(self) -> float | None:
        """The operation computes a mask that excludes input elements equal to this number."""
        return None

    @property
    def mask_input_count(self) -> int:
        """How many of its first inputs may come with a mask that it uses."""
        return 0

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        """The indices of the inputs whose masks are the last inputs, in order."""
        return ()

    def with_masks(self, which: Collection[int]) -> Operation:
        """Return the operation with the masks of these inputs as its last inputs, in order."""
        raise NotImplementedError

    def input_value(self, output: float) -> float | None:
        """Return the number that is ``output`` after the operation, whichever element it is.

        None if there is none, or if it depends on the element.
        """
        return None

    @property
    def reduction(self) -> tuple[int, int | str] | None:
        """The axis of its only input that the operation removes, and how.

        An integer is the index of the entry that it takes; a word says how it combines the entries
        (``mean``). None if it removes no axis, or several.
        """
        return None

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield what other frameworks, or versions of them, compute for this layer.

        A diagnosis tries them when a model's outputs differ from the framework's. It finds other
        activations, directions and arrangements of weights without a declaration.
        """
        yield from ()

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        """Return upper bounds of the output's absolute values, before its activation, by feature.

        Parameters
        ----------
        weights
            By name.
        inputs
            The same bounds of each input: ``(features,)``, or a number for all features.
        shapes
            Of the inputs.

        Returns
        -------
        array or None
            ``(features,)`` or a number; None if it is unknown, which is always safe.
        """
        return None

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
                read = cls.read_layer if hints[name] is Operation else READERS[hints[name]]
                values[name] = read(name, config[name])
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
    if isinstance(value, Activation):
        return value.to_json()
    if isinstance(value, Operation):
        return {"kind": value.kind, "config": value.to_json()}
    return [_to_json(v) for v in value] if isinstance(value, tuple) else value
