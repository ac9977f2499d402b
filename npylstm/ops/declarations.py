"""What an operation may declare of itself, each with a default that is right for most.

Importers, recording, streams and diagnosis ask for these declarations and never for the class of an
operation. A new operation overrides those that apply to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from npylstm.arrays import Array
from npylstm.ops.shapes import Shape

if TYPE_CHECKING:
    from npylstm.ops.base import Operation
    from npylstm.ops.conventions import Convention
    from npylstm.ops.recurrent import Recurrent

__all__ = ["Declarations"]


class Declarations:
    """The base class of :class:`npylstm.ops.base.Operation`."""

    is_recurrent: ClassVar[bool] = False  # whether it runs over a time axis with carried state
    keeps_shape: ClassVar[bool] = False  # whether the main output has the first input's shape
    moves_elements: ClassVar[bool] = False  # whether the main output has only input elements, zeros
    is_stricter: ClassVar[bool] = False  # whether frameworks accept input shapes that it does not
    function: ClassVar[Callable[..., Any] | None] = None  # the user's function, once bound
    returns_input: ClassVar[bool] = False  # whether the output is the first input itself
    # Whether small outputs have small rounding errors if small inputs have; False is always safe.
    keeps_relative_errors: ClassVar[bool] = False
    # Whether forward uses packed arrays only as ``x @ matrix`` (2 axes) or ``x + vector`` (1 axis).
    uses_matrix_products: ClassVar[bool] = False
    holds_infinity: ClassVar[bool] = False  # whether weights may be infinite, as in masks

    @property
    def computes_integers(self) -> bool:
        """Whether integers become other integers, which may be larger: sums, products.

        Behind such an operation importers add a check that floats hold the result.
        """
        return False

    @property
    def operand(self) -> float | None:
        """The number that is an operand besides the inputs; None if there is none."""
        return None

    @property
    def returns_indices(self) -> bool:
        """Whether the main output holds positions of entries: small integers, none a limit."""
        return False

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

    def recurrent_parts(self) -> Mapping[str, Recurrent]:
        """Return the recurrent layers that this operation runs, by the prefix of their weights.

        Their outputs may be merged in any way: see :meth:`merging`.
        """
        return {}

    def with_recurrent_parts(self, parts: Mapping[str, Recurrent]) -> Operation:
        """Return the operation with these recurrent layers instead; the others are the same."""
        raise NotImplementedError

    def merging(self, rank: int) -> Operation | None:
        """Return the operation that merges the outputs, of ``rank`` axes, of recurrent parts.

        None if there is one part, or if their outputs stay separate.
        """
        return None

    @property
    def returns_sequence(self) -> bool:
        """Whether it is recurrent and its main output has the axis of the steps."""
        return False

    @property
    def expected_input(self) -> Shape | None:
        """The usual shape of the first input; it may have more axes or fewer.

        Sizes that the config does not determine are symbols. None if no shape is usual.
        """
        return None

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
        """How many of its first inputs may come with an attached mask that it uses.

        0 for merges: whether they use masks depends on the version of the framework.
        """
        return 0

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        """The indices of the inputs whose masks are the last inputs, in order."""
        return ()

    def with_masks(self, which: Collection[int]) -> Operation:
        """Return the operation with the masks of these inputs as its last inputs, in order."""
        raise NotImplementedError

    @property
    def keeps_ids(self) -> bool:
        """Whether integers from 0 on come out as they are, so that an embedding may follow."""
        return self.moves_elements

    def input_value(self, output: float) -> float | None:
        """Return the number that is ``output`` after the operation, whichever element it is.

        None if there is none, or if it depends on the element.
        """
        return output if self.moves_elements else None

    def scratch_size(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Return the size of the largest array inside :meth:`forward`, besides inputs and outputs.

        Parameters
        ----------
        shapes
            Of the inputs.
        """
        return 0

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
