"""How much rounding a model amplifies: its float64 runs, exact and moved by one unit each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from npylstm.activations import SIGMOID
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select, Slice
from npylstm.ops.masking import Masking
from npylstm.ops.pointwise import Identity, Rescaling
from npylstm.ops.recurrent import Recurrent
from npylstm.ops.shaping import Concatenate
from npylstm.parity.variants import Wrap
from npylstm.runtime.numpy_engine import Node
from npylstm.spec import Edge, LayerSpec, ModelSpec

__all__ = ["PERTURBATIONS", "HeldMasks", "Widening", "makes_masks", "sizes_on_the_way"]

# The noise is the larger of two measures: npylstm's own error against the float64 run, and what
# becomes of the float64 run when every weight and input is moved by up to one unit in the last
# place. The second shows how far this model amplifies rounding even where npylstm is lucky, and is
# the only one where npylstm itself computes in float64.
PERTURBATIONS = 2


class Widening:
    """Takes a model and its inputs to float64, exactly or moved by a unit in the last place each.

    Parameters
    ----------
    spec
        The model.
    seed
        Of the random moves; None: nothing is moved.
    """

    def __init__(self, spec: ModelSpec, seed: int | None = None) -> None:
        self._dtype = np.dtype(spec.dtype)
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._integer = {t.name for t in spec.inputs if t.integer}

    def layer(self, named: LayerSpec) -> LayerSpec:
        """Widen a layer: its weights, and a mask value as the model's own type holds it."""
        layer = named.layer
        if isinstance(layer, Masking):
            layer = replace(layer, mask_value=float(self._dtype.type(layer.mask_value)))
        weights = {k: self.array(w) for k, w in named.weights.items()}
        return replace(named, layer=layer, weights=weights)

    def input(self, name: str, array: Array) -> Array:
        """Widen an input; ids stay what they are."""
        if name in self._integer or array.dtype.kind != "f":
            wide: Array = array.astype(np.float64)
            return wide
        return self.array(array)

    def array(self, array: Array) -> Array:
        """Widen weights or states."""
        wide: Array = array.astype(np.float64)
        if self._rng is None:
            return wide
        eps = float(np.finfo(self._dtype).eps)
        moved: Array = wide * (1 + eps * self._rng.uniform(-1, 1, array.shape))
        return moved


# Functions that give small values of small arguments with an error as small. What others compute
# on the way is of size one: exp(x) - 1 loses what is below a unit in the last place of one.
_STEADY = ("linear", "relu", "tanh", "sigmoid")
_GATES = (*_STEADY, "hard_sigmoid_fifth", "hard_sigmoid_sixth")
_PASSING = (Identity, Select, Slice)  # features stay what they are, or are fewer


Sizes = npt.NDArray[np.float64] | float


def sizes_on_the_way(spec: ModelSpec, tensors: Mapping[str, Array]) -> dict[str, Sizes]:
    """How large the numbers are of which every tensor is made, at most 1.

    Rounding is a part of these, and the tensor itself may be smaller: ``1 - z``, ``exp(x) - 1``.
    A product scales what it reads, with its rounding: behind small weights less counts.

    Parameters
    ----------
    spec
        The model.
    tensors
        What an exact run computed; where it does not hold what is needed, the answer is 1.

    Returns
    -------
    dict
        By tensor one number for each feature, or one for all.
    """
    sizes: dict[str, Sizes] = {}
    steady = {t.name for t in spec.inputs}  # where rounding is a part of the tensor's own size
    for edge in spec.edges:
        named = spec[edge.layer]
        own = steady.issuperset(edge.inputs) and _is_steady(named.layer)
        for name in edge.outputs:
            sizes[name] = _size(spec, edge, name, sizes, tensors, steady, own)
        if own:
            steady.update(edge.outputs)
    return sizes


def _size(
    spec: ModelSpec, edge: Edge, output: str, sizes: Mapping[str, Sizes],
    tensors: Mapping[str, Array], steady: Collection[str], own: bool,
) -> Sizes:  # fmt: skip
    """The size of one output of a call; ``own``: whether its rounding is a part of itself."""
    named = spec[edge.layer]
    layer = named.layer
    before: list[Sizes] = [sizes.get(t, 1.0) for t in edge.inputs]
    if not before:  # a constant
        return 1.0
    if isinstance(layer, _PASSING):
        return before[0] if np.shape(before[0]) in ((), spec.shapes[output][-1:]) else 1.0
    if isinstance(layer, Concatenate) and layer.axis == len(spec.shapes[output]) - 1:
        widths = [spec.shapes[t][-1] for t in edge.inputs]
        if all(isinstance(width, int) for width in widths):
            parts = [np.broadcast_to(s, (int(w),)) for s, w in zip(before, widths, strict=True)]
            joined: npt.NDArray[np.float64] = np.concatenate(parts)
            return joined
    if isinstance(layer, Rescaling):
        scaled: npt.NDArray[np.float64] = abs(layer.scale) * np.asarray(before[0])
        return np.minimum(1.0, scaled + abs(layer.offset))
    if isinstance(layer, Recurrent) and own and output in tensors:
        return np.minimum(1.0, _largest(tensors[output]))
    reads = tensors.get(edge.inputs[0])
    if isinstance(layer, Dense) and layer.activation.name in _STEADY and reads is not None:
        least = 0.0 if edge.inputs[0] in steady else 1.0
        kernel = np.abs(named.weights["kernel"].astype(np.float64))
        made: npt.NDArray[np.float64] = np.maximum(_largest(reads), least) @ kernel
        if layer.use_bias:
            made = made + np.abs(named.weights["bias"])
        return np.minimum(1.0, made)
    return 1.0


def _is_steady(layer: Operation) -> bool:
    if isinstance(layer, Dense):
        return layer.activation.name in _STEADY
    if isinstance(layer, Recurrent):
        gates = getattr(layer, "recurrent_activation", SIGMOID)
        return layer.activation.name in _STEADY and gates.name in _GATES
    return isinstance(layer, (*_PASSING, Masking, Embedding))


def _largest(tensor: Array) -> npt.NDArray[np.float64]:
    """The largest size of every feature."""
    finite = np.where(np.isfinite(tensor), np.abs(tensor), 0.0)
    found: npt.NDArray[np.float64] = finite.reshape(-1, tensor.shape[-1]).max(axis=0, initial=0.0)
    return found


class HeldMasks:
    """The masks that Masking made of its input in one run, for other runs to repeat.

    Padding is known by equality: what is moved by a unit in the last place, or computed in another
    type before it comes there, is no padding any more. Rounding has no say in which steps count, so
    the wider runs take that from the model's own.
    """

    def __init__(self) -> None:
        self._masks: list[Array] = []

    def keep(self, node: Node) -> Node:
        """Let a layer that makes masks hand them in."""
        return _Keeping(node, self._masks) if _makes_masks(node.layer) else node

    def repeating(self) -> Callable[[Wrap | None], Wrap]:
        """Begin to repeat the masks, in the order of their calls, over all runs of one model."""
        masks = iter(self._masks)

        def around(first: Wrap | None) -> Wrap:
            def wrap(node: Node) -> Node:
                node = first(node) if first else node
                return _Repeating(node, masks) if _makes_masks(node.layer) else node

            return wrap

        return around


def makes_masks(layers: Iterable[Operation]) -> bool:
    """Whether any layer makes a mask of the values of its input."""
    return any(map(_makes_masks, layers))


def _makes_masks(layer: Operation) -> bool:
    return isinstance(getattr(layer, "layer", layer), Masking)


class _Keeping(Node):
    def __init__(self, node: Node, masks: list[Array]) -> None:
        self.name, self.layer, self.packed, self._masks = node.name, node.layer, node.packed, masks

    def compute(
        self, inputs: Sequence[Array], state: Mapping[str, Array], mask: Array | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        outputs, after = super().compute(inputs, state, mask)
        self._masks.append(outputs[1])
        return outputs, after


class _Repeating(Node):
    def __init__(self, node: Node, masks: Iterator[Array]) -> None:
        self.name, self.layer, self.packed, self._masks = node.name, node.layer, node.packed, masks

    def compute(
        self, inputs: Sequence[Array], state: Mapping[str, Array], mask: Array | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (x,) = inputs
        held = next(self._masks)
        return (np.where(held[..., None] != 0, x, 0.0), held.astype(x.dtype)), {}
