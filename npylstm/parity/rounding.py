"""Measure how a model amplifies rounding: float64 runs, exact and perturbed by up to one ulp."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.parity.variants import Wrap
from npylstm.runtime.numpy_engine import Node
from npylstm.spec import Edge, LayerSpec, ModelSpec

__all__ = ["PERTURBATIONS", "MaskRecorder", "Widening", "intermediate_scales", "makes_masks"]

# The noise is the larger of two measures: npylstm's error against the float64 run, and the change
# of the float64 run if every weight and input is perturbed by up to one unit in the last place
# (ulp). The second shows how this model amplifies rounding even if npylstm's error is small by
# chance. It is the only measure if npylstm itself computes in float64.
PERTURBATIONS = 2


class Widening:
    """Casts a model and its inputs to float64, exactly or perturbed by up to one ulp each.

    Parameters
    ----------
    spec
        The model.
    seed
        Seed of the perturbations; None for no perturbation.
    """

    def __init__(self, spec: ModelSpec, seed: int | None = None) -> None:
        self._dtype = np.dtype(spec.dtype)
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._integer = {t.name for t in spec.inputs if t.integer}

    def layer(self, named: LayerSpec) -> LayerSpec:
        """Cast a layer's weights."""
        return replace(named, weights={k: self.array(w) for k, w in named.weights.items()})

    def input(self, name: str, array: Array) -> Array:
        """Cast an input; integers are not perturbed."""
        if name in self._integer or array.dtype.kind != "f":
            wide: Array = array.astype(np.float64)
            return wide
        return self.array(array)

    def array(self, array: Array) -> Array:
        """Cast weights or states."""
        wide: Array = array.astype(np.float64)
        if self._rng is None:
            return wide
        eps = float(np.finfo(self._dtype).eps)
        moved: Array = wide * (1 + eps * self._rng.uniform(-1, 1, array.shape))
        return moved


# Functions whose error is small for small arguments. The others have intermediate values of size
# one: exp(x) - 1 loses everything below one ulp of 1.
_STEADY = ("linear", "relu", "tanh", "sigmoid")
_GATES = (*_STEADY, "hard_sigmoid_fifth", "hard_sigmoid_sixth")

Sizes = npt.NDArray[np.float64] | float


def intermediate_scales(spec: ModelSpec, tensors: Mapping[str, Array]) -> dict[str, Sizes]:
    """Return the size of the intermediate values behind every tensor, at most 1.

    Rounding errors are relative to these values. The tensor itself may be smaller: ``1 - z``,
    ``exp(x) - 1``. A product with small weights scales values and errors down.

    Parameters
    ----------
    spec
        The model.
    tensors
        The tensors of an exact run; if one is missing, the size is 1.

    Returns
    -------
    dict
        For each tensor one number for each feature, or one for all.
    """
    sizes: dict[str, Sizes] = {}
    steady = {t.name for t in spec.inputs}  # errors are relative to the tensor's own size
    for edge in spec.edges:
        named = spec[edge.layer]
        own = named.layer.keeps_relative_errors and _is_steady(named.layer)
        own = own and steady.issuperset(edge.inputs)
        for name in edge.outputs:
            sizes[name] = _size(spec, edge, name, sizes, tensors, steady, own)
        if own:
            steady.update(edge.outputs)
    return sizes


def _size(
    spec: ModelSpec, edge: Edge, output: str, sizes: Mapping[str, Sizes],
    tensors: Mapping[str, Array], steady: Collection[str], own: bool,
) -> Sizes:  # fmt: skip
    """Return the size for one output; ``own``: its errors are relative to its own values."""
    named = spec[edge.layer]
    layer = named.layer
    if layer.is_recurrent and own and output in tensors:
        return np.minimum(1.0, _largest(tensors[output]))
    if not edge.inputs or not _is_steady(layer):
        return 1.0
    before = [np.asarray(sizes.get(t, 1.0)) for t in edge.inputs]
    if "kernel" in layer.weight_roles.values():  # the products themselves are rounded
        if edge.inputs[0] not in tensors:
            return 1.0
        least = 0.0 if edge.inputs[0] in steady else 1.0
        before = [np.maximum(_largest(tensors[edge.inputs[0]]), least)]
    shapes = [spec.shapes[t] for t in edge.inputs]
    found = layer.magnitudes(named.weights, before, shapes)
    fits = found is not None and found.shape in ((), spec.shapes[output][-1:])
    return np.minimum(1.0, found) if found is not None and fits else 1.0


def _is_steady(layer: Operation) -> bool:
    return all(
        activation.name in (_GATES if name == "recurrent_activation" else _STEADY)
        for name, activation in layer.activations.items()
    )


def _largest(tensor: Array) -> npt.NDArray[np.float64]:
    """Return the largest absolute value of every feature."""
    finite = np.where(np.isfinite(tensor), np.abs(tensor), 0.0)
    found: npt.NDArray[np.float64] = finite.reshape(-1, tensor.shape[-1]).max(axis=0, initial=0.0)
    return found


class MaskRecorder:
    """The masks that Masking layers computed in one run, for reuse in other runs.

    Masking finds padding by equality. An input that is perturbed by one ulp, or computed in another
    dtype, no longer equals the mask value. So the float64 runs reuse the masks of the run in the
    model's dtype.
    """

    def __init__(self) -> None:
        self._masks: list[Array] = []

    def keep(self, node: Node) -> Node:
        """Return a node that records its mask, if its layer computes one."""
        return _Keeping(node, self._masks) if _makes_masks(node.layer) else node

    def repeating(self) -> Callable[[Wrap | None], Wrap]:
        """Return a wrapper of ``wrap`` that reuses the masks in the order of the calls."""
        masks = iter(self._masks)

        def around(first: Wrap | None) -> Wrap:
            def wrap(node: Node) -> Node:
                node = first(node) if first else node
                return _Repeating(node, masks) if _makes_masks(node.layer) else node

            return wrap

        return around


def makes_masks(layers: Iterable[Operation]) -> bool:
    """Return whether any layer computes a mask from the values of its input."""
    return any(map(_makes_masks, layers))


def _makes_masks(layer: Operation) -> bool:
    inner = layer.innermost
    return inner.masked_value is not None and inner.vocabulary_size is None  # ids are exact


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
