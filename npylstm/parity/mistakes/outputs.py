"""Mistakes at the outputs: their order, activation, scale and precision."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npylstm.activations import SIGMOID, Activation
from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.base import Operation
from npylstm.parity.corrections import Correction, Found, Run, Subject
from npylstm.parity.examples import Example
from npylstm.runtime.numpy_engine import Node
from npylstm.spec import LayerSpec
from npylstm.storage import drop_bits

__all__ = [
    "ROUNDINGS", "float16_outputs", "logits", "output_dropout", "output_order",
    "reduced_precision", "relative_mismatch", "rounded_layers",
]  # fmt: skip

Arrays = dict[str, Array]

_LINEAR, _SOFTMAX, _LOG = Activation("linear"), Activation("softmax"), Activation("log_softmax")


def output_order(subject: Subject) -> Found:
    """Outputs are in another order.

    Source: frameworks return several outputs as a list; a dictionary sorts them by name.
    """
    names = list(subject.spec.outputs)
    shapes = [subject.spec.shapes[name] for name in names]
    orders: Iterator[tuple[int, ...]] = itertools.permutations(range(len(names)))
    if len(names) > 4:
        pairs = itertools.combinations(range(len(names)), 2)
        orders = iter(
            tuple(b if k == a else a if k == b else k for k in range(len(names))) for a, b in pairs
        )
    for order in orders:
        if [*order] == sorted(order) or any(len(shapes[k]) != len(shapes[j])
                                            for j, k in enumerate(order)):  # fmt: skip
            continue
        source = {name: names[k] for name, k in zip(names, order, strict=True)}

        def around(run: Run, example: Example, source: dict[str, str] = source) -> Arrays:
            made = run(example).tensors
            return {name: made[other] for name, other in source.items()}

        yield Correction(
            None, {"order": [source[name] for name in names]},
            f"give the outputs in the order {', '.join(names)}", around=around,
        )  # fmt: skip


def logits(subject: Subject) -> Found:
    """One side returns probabilities, the other logits: the last activation is missing or extra.

    Losses take logits (``from_logits=True``, ``CrossEntropyLoss``), so a model may be trained
    without the softmax that its users expect. Source: pytorch.org CrossEntropyLoss.
    """
    for name in subject.spec.outputs:
        maker = _maker(subject, name)
        own = output_activation(maker.layer) if maker else None
        if maker is None or own is None:
            continue
        if own.name in ("softmax", "log_softmax", "sigmoid"):
            others = [_LINEAR, *({_SOFTMAX, _LOG, SIGMOID} - {own})]
        elif own.name == "linear":
            others = [_SOFTMAX, SIGMOID, _LOG]
        else:
            continue
        for other in sorted(others, key=str):
            where = f"at the output {name}"
            done = "leave out" if own.name == "linear" else "apply"
            layer = maker.layer.with_activations({"activation": other})
            yield Correction(
                maker.name, {"from": str(own), "to": str(other)},
                f"{where}, {done} {other if own.name == 'linear' else own}",
                {maker.name: replace(maker, layer=layer)},
            )  # fmt: skip
        if own.name in ("softmax", "sigmoid"):  # applied twice
            yield Correction(
                maker.name, {"from": str(own), "to": f"{own} twice"}, f"apply {own} once",
                around=functools.partial(_applied_again, name, own),
            )  # fmt: skip


def _applied_again(name: str, activation: Activation, run: Run, example: Example) -> Arrays:
    return {k: activation(y) if k == name else y for k, y in run(example).tensors.items()}


def _maker(subject: Subject, tensor: str) -> LayerSpec | None:
    """Return the layer that computes an output; None if it is an input."""
    for edge in reversed(subject.spec.edges):
        if tensor in edge.outputs:
            named = subject.layers[edge.layer]
            if not named.layer.returns_input:
                return named
            tensor = edge.inputs[0]
    return None


def output_activation(layer: Operation) -> Activation | None:
    """Return the activation of a layer's output; None if it has none, or is recurrent."""
    return None if layer.is_recurrent else layer.activations.get("activation")


def reduced_precision(subject: Subject) -> Found:
    """Weights were stored with fewer bits.

    ``model.half()``, a file of bfloat16, a converter that saves space; also TensorFloat-32
    products, whose factors have 10 bits. Source: pytorch.org Module.half, nvidia.com
    "TensorFloat-32".
    """
    groups: list[tuple[str | None, list[str]]] = [(None, [n.name for n in subject.spec.layers])]
    groups += [(n.name, [n.name]) for n in subject.spec.layers if n.weights]
    for kind, rounded in ROUNDINGS:
        for label, names in groups:
            yield Correction(
                label, {"type": kind},
                f"in {label or 'all layers'}, use weights of float32, not of {kind}",
                rounded_layers(subject, names, rounded),
            )  # fmt: skip
    if relative_mismatch(subject) < _LOW_PRECISION:
        yield Correction(
            None, {"type": "tf32"}, "compute products in float32, not in TensorFloat-32",
            around=lambda run, example: dict(run(example, _with_tf32_products).tensors),
            resembles=0.5,
        )  # fmt: skip


@dataclass(frozen=True)
class _Tf32Matrix:
    """A matrix whose products round factors to 10 bits and sum in the array's dtype."""

    values: Array
    __array_ufunc__ = None

    def __rmatmul__(self, x: Array) -> Array:
        y: Array = _tf32(x) @ self.values
        return y


class _Tf32Convolution(Node):
    """A convolution whose factors have 10 bits."""

    def __init__(self, node: Node, kernel: str) -> None:
        self.name, self.layer = node.name, node.layer
        self.packed = {**node.packed, kernel: _tf32(node.packed[kernel])}

    def compute(
        self, inputs: Sequence[Array], state: Mapping[str, Array], mask: Array | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return super().compute([_tf32(inputs[0]), *inputs[1:]], state, mask)


def _with_tf32_products(node: Node) -> Node:
    if node.layer.uses_matrix_products:
        packed: dict[str, Any] = {
            k: _Tf32Matrix(_tf32(a)) if a.ndim == 2 else a for k, a in node.packed.items()
        }
        node.packed = packed
    elif (kernel := node.layer.weight_with_role("kernel")) is not None:
        return _Tf32Convolution(node, kernel)
    return node


# The evidence is that outputs have no more bits than float16: a value does by chance once in 8,192.
# It is unknown where the program rounds intermediate values, so the correction explains little: it
# may leave the mismatch of two roundings of one size, one of them not made.
_FEWEST_VALUES, _TWO_ROUNDINGS = 4, 3.0
_LOW_PRECISION = 3e-2  # largest mismatch, relative to the outputs, that few bits cause


def relative_mismatch(subject: Subject) -> float:
    """Return the largest ratio of a mismatch's rms to the output's rms."""
    worst = 0.0
    for tape in subject.tapes:
        for name, y in tape.outputs.items():
            other = tape.example.outputs[name].astype(np.float64)
            size = float(np.sqrt(np.mean(other**2))) if other.size else 0.0
            off = float(np.sqrt(np.mean((y - other) ** 2))) if other.size else 0.0
            worst = max(worst, off / size if size else 0.0)
    return worst


def rounded_layers(
    subject: Subject, names: list[str], rounded: Callable[[Array], Array]
) -> dict[str, LayerSpec]:
    """Return some layers with rounded weights, by name."""
    layers = (subject.layers[name] for name in names)
    return {
        n.name: replace(n, weights={k: rounded(a) for k, a in n.weights.items()})
        for n in layers
        if n.weights
    }


def _float16(a: Array) -> Array:
    with np.errstate(over="ignore"):
        return a.astype(np.float16).astype(a.dtype)


def _bits_kept(a: Array, dropped: int) -> Array:
    return drop_bits(a, dropped).view(np.float32).astype(a.dtype)


def _bfloat16(a: Array) -> Array:
    return _bits_kept(a, 16)


ROUNDINGS = (("float16", _float16), ("bfloat16", _bfloat16))


def _tf32(a: Array) -> Array:
    return _bits_kept(a, 13)


def float16_outputs(subject: Subject) -> Found:
    """Activations were computed in float16 or bfloat16: the outputs have no more bits."""
    theirs = [y for e in subject.examples for y in e.outputs.values() if y.dtype.kind == "f"]
    enough = sum(np.unique(y).size for y in theirs) >= _FEWEST_VALUES
    for kind, rounded in ROUNDINGS:
        few_bits = all(np.array_equal(y, rounded(y), equal_nan=True) for y in theirs)
        if few_bits and enough and relative_mismatch(subject) < _LOW_PRECISION:

            def around(
                run: Run, example: Example, rounded: Callable[[Array], Array] = rounded
            ) -> Arrays:
                return {k: rounded(y) for k, y in run(example).tensors.items()}

            names = [n.name for n in subject.spec.layers]
            yield Correction(
                None, {"type": kind, "of": "activations"},
                f"compute in float32, not in {kind}",
                rounded_layers(subject, names, rounded), around=around, resembles=_TWO_ROUNDINGS,
            )  # fmt: skip


def output_dropout(subject: Subject) -> Found:
    """Dropout is active at the output: some values are zero, all others larger by one factor.

    ``model.eval()`` was not called. Source: pytorch.org nn.Dropout.
    """
    rates = []
    for tape in subject.tapes:
        for name, y in tape.outputs.items():
            other = tape.example.outputs[name]
            kept = (other != 0) & (np.abs(y) > 1e-6)
            if kept.all() or not kept.any() or not (other == 0).any():
                return
            ratio = other[kept].astype(np.float64) / y[kept]
            factor = float(np.median(ratio))
            if not 1 < factor < 20 or np.abs(ratio - factor).max() > 1e-2 * factor:
                return
            rates.append(1 - 1 / factor)
    if not rates:
        return
    rate = round(float(np.mean(rates)), 4)

    def around(run: Run, example: Example) -> Arrays:
        made = run(example).tensors
        if any(y.shape != example.outputs[k].shape for k, y in made.items()):
            raise NpylstmError("other shapes")
        return {
            k: np.where(example.outputs[k] == 0, 0, y / (1 - rate)).astype(y.dtype)
            for k, y in made.items()
        }

    yield Correction(
        None, {"rule": "dropout", "value": rate},
        "put the model in evaluation mode: dropout is active at the output",
        around=around, resembles=0.1,
    )  # fmt: skip
