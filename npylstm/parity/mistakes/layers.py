"""Mistakes in layers that are not recurrent, and between layers of equal shape."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.indexing import Slice
from npylstm.ops.shaping import Concatenate
from npylstm.parity.corrections import Correction, Detail, Found, Run, Subject
from npylstm.parity.examples import Example
from npylstm.parity.mistakes.cells import ACTIVATIONS, cell_activation
from npylstm.parity.mistakes.graphs import insert_behind, of_graph
from npylstm.parity.mistakes.outputs import output_activation
from npylstm.parity.variants import CachedRun
from npylstm.spec import LayerSpec

__all__ = [
    "activation", "directions_swapped", "layer_bias", "layer_bias_doubled",
    "layer_kernel_transposed", "layers_swapped", "normalization_permuted", "normalization_swapped",
    "training_mode", "weights_of_another_layer",
]  # fmt: skip

Options = Iterable[tuple[Detail, LayerSpec]]


def activation(subject: Subject) -> Found:
    """A layer applies another activation function, or none.

    A weights file does not store activations, and one name means different functions (``gelu``
    exact or by tanh, ``hard_sigmoid`` with two slopes, the slope of ``leaky_relu``: 0.3 in Keras 2,
    0.2 in Keras 3, 0.01 in PyTorch).
    """

    def change(named: LayerSpec) -> Options:
        own = output_activation(named.layer)
        for other in ACTIVATIONS if own else ():
            if other != own:
                layer = named.layer.with_activations({"activation": other})
                yield {"from": str(own), "to": str(other)}, replace(named, layer=layer)

    yield from cell_activation(subject)
    yield from subject.in_layers(
        change, "in {where}, compute with the activation {to} instead of {from}"
    )


def layer_bias(subject: Subject) -> Found:
    """A Dense, a convolution or a normalization computes without its bias."""
    return subject.in_layers(
        lambda named: _other_bias(named, ("bias", "offset"), np.zeros_like),
        "in {where}, add the {of}",
    )


def _other_bias(
    named: LayerSpec, roles: Iterable[str], change: Callable[[Array], Array]
) -> Options:
    for name in map(named.layer.weight_with_role, roles):
        if name is not None:
            yield {"of": name}, _with(named, **{name: change(named.weights[name])})


def layer_bias_doubled(subject: Subject) -> Found:
    """A Dense or a convolution adds its bias twice."""
    return subject.in_layers(
        lambda named: _other_bias(named, ("bias",), lambda bias: 2 * bias),
        "in {where}, add the {of} once",
    )


def layer_kernel_transposed(subject: Subject) -> Found:
    """A kernel of a Dense or a convolution is read with axes exchanged, or reversed in time.

    PyTorch's Linear stores (units, features). Frameworks compute a correlation and call it a
    convolution; ``numpy.convolve`` reverses the kernel.
    """

    def change(named: LayerSpec) -> Options:
        name = named.layer.weight_with_role("kernel")
        if name is not None:
            for of, kernel in _other_layouts(named.weights[name]):
                yield {"of": of}, _with(named, **{name: kernel})

    return subject.in_layers(change, "in {where}, read the kernel in its own layout ({of})")


def _other_layouts(kernel: Array) -> Iterator[tuple[str, Array]]:
    """Yield a kernel as other layouts read it, with a name for each."""
    if kernel.ndim == 2:
        if kernel.shape[0] == kernel.shape[1]:
            yield "rows and columns", kernel.T
        else:
            yield "memory order", kernel.T.reshape(kernel.shape)
            yield "memory order, the other way", kernel.reshape(kernel.shape[::-1]).T
        return
    yield "time", kernel[::-1]  # (size, features, units)
    for axes in itertools.permutations(range(kernel.ndim)):
        turned = kernel.transpose(axes)
        if axes != tuple(range(kernel.ndim)):
            if turned.shape == kernel.shape:
                yield f"axes {axes}", turned
            yield f"memory order {axes}", turned.reshape(kernel.shape)


def _with(named: LayerSpec, **weights: Array) -> LayerSpec:
    return replace(named, weights={**named.weights, **weights})


def normalization_swapped(subject: Subject) -> Found:
    """A normalization exchanges gamma and beta, or mean and variance.

    Keras stores gamma, beta, mean, variance; PyTorch names them weight, bias, running_mean,
    running_var. All have one shape, so any order is accepted.
    """
    pairs = (("scale", "offset"), ("mean", "variance"))

    def change(named: LayerSpec) -> Options:
        both = [[named.layer.weight_with_role(role) for role in pair] for pair in pairs]
        there = [(a, b) for a, b in both if a is not None and b is not None]
        for chosen in there:
            yield _exchange(named, [chosen])
        if len(there) > 1:
            yield _exchange(named, there)

    return subject.in_layers(change, "in {where}, exchange {of}")


def _exchange(named: LayerSpec, pairs: Iterable[tuple[str, str]]) -> tuple[Detail, LayerSpec]:
    swapped: dict[str, Array] = {}
    for a, b in pairs:
        swapped |= {a: named.weights[b], b: named.weights[a]}
    said = ", ".join(f"{a} and {b}" for a, b in pairs)
    return {"of": said}, _with(named, **swapped)


def normalization_permuted(subject: Subject) -> Found:
    """A batch normalization reads its four arrays in any other order."""

    def change(named: LayerSpec) -> Options:
        roles = ("scale", "offset", "mean", "variance")
        found = (named.layer.weight_with_role(role) for role in roles)
        names = [name for name in found if name is not None]
        if len(names) < 3:
            return
        for order in itertools.permutations(names):
            if list(order) != names:
                moved = {k: named.weights[o] for k, o in zip(names, order, strict=True)}
                yield {"of": f"{', '.join(names)} as {', '.join(order)}"}, _with(named, **moved)

    return subject.in_layers(change, "in {where}, read {of}")


def directions_swapped(subject: Subject) -> Found:
    """The weights of the two directions are exchanged, or the backward output is first.

    Source: pytorch.org nn.LSTM (``_reverse``), keras.io Bidirectional (forward weights first).
    """

    def change(named: LayerSpec) -> Options:
        parts = named.layer.recurrent_parts()
        if len(parts) == 2 and len({str(part.weight_shapes()) for part in parts.values()}) == 1:
            a, b = parts
            swapped = {
                f"{b if key.startswith(a) else a}{key.partition('/')[2]}": array
                for key, array in named.weights.items()
            }
            yield {"of": "weights"}, replace(named, weights=swapped)

    yield from subject.in_layers(
        change, "in {where}, exchange the weights of the forward and the backward direction"
    )
    yield from _outputs_joined_backward_first(subject)


def _outputs_joined_backward_first(subject: Subject) -> Found:
    """The concatenated output starts with the backward half."""
    for named in subject.spec.layers:
        layer = named.layer
        parts = layer.recurrent_parts()
        if len(parts) != 2 or layer.parts() != parts:  # not concatenated
            continue
        forward, backward = (part.output_size for part in parts.values())
        axis = 2 if layer.returns_sequence else 1
        chain = (
            (Slice(axis, forward, None, 1, backward), (0,)),
            (Slice(axis, 0, forward, 1, forward), (0,)),
            (Concatenate(axis), (1, 2)),
        )
        spec = insert_behind(subject.spec, named.name, chain)
        fix = f"in {named.name}, put the forward half of the outputs first"
        yield from of_graph(named.name, {"of": "outputs"}, fix, spec)


def layers_swapped(subject: Subject) -> Found:
    """Two layers of equal shape have each other's weights.

    Sorted as text, ``lstm_10`` is before ``lstm_2``; old Keras files identify layers by order.
    """
    for a, b in itertools.combinations(subject.spec.layers, 2):
        if _fits(a, b) and a.weights:
            changes = {a.name: replace(a, weights=b.weights), b.name: replace(b, weights=a.weights)}
            yield Correction(
                None, {"layers": [a.name, b.name]},
                f"exchange the weights of {a.name} and {b.name}", changes,
            )  # fmt: skip
    for a_cell, b_cell in itertools.combinations(subject.cells, 2):
        # The same direction of two layers.
        if a_cell.way and a_cell.way == b_cell.way and _same_shapes(a_cell.weights, b_cell.weights):
            pair = (
                replace(a_cell, weights=b_cell.weights),
                replace(b_cell, weights=a_cell.weights),
            )
            names = [f"{c.name}/{c.way}" for c in (a_cell, b_cell)]
            yield Correction(
                None, {"layers": names}, f"exchange the weights of {names[0]} and {names[1]}",
                subject.put(pair),
            )  # fmt: skip


def weights_of_another_layer(subject: Subject) -> Found:
    """A layer has another layer's weights: a name matched twice, or a loop ran once.

    Its own weights were never loaded. The shapes are equal, so there was no error.
    """
    for a, b in itertools.permutations(subject.spec.layers, 2):
        if _fits(a, b) and a.weights:
            yield Correction(
                a.name, {"from": b.name}, f"load {a.name}'s own weights; it has those of {b.name}",
                {a.name: replace(a, weights=b.weights)},
            )  # fmt: skip
    for mine, other in itertools.permutations(subject.cells, 2):
        if mine.name == other.name and _same_shapes(mine.weights, other.weights):
            label = f"{mine.name}/{mine.way}"
            yield Correction(
                label, {"from": f"{other.name}/{other.way}"},
                f"load the own weights of {label}; it has those of {other.name}/{other.way}",
                subject.put([replace(mine, weights=other.weights)]),
            )  # fmt: skip


def _fits(a: LayerSpec, b: LayerSpec) -> bool:
    return a.kind == b.kind and _same_shapes(a.weights, b.weights)


def _same_shapes(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


def training_mode(subject: Subject) -> Found:
    """A batch normalization uses the batch's own mean and variance.

    ``model.eval()`` was not called, or ``training=True`` passed. Source: pytorch.org BatchNorm1d.
    """
    norms = [n for n in subject.spec.layers if n.layer.weight_with_role("variance")]
    choices = [[n.name] for n in norms] + ([[n.name for n in norms]] if len(norms) > 1 else [])
    for names in choices:

        def around(run: Run, example: Example, names: list[str] = names) -> dict[str, Array]:
            return _with_batch_statistics(subject, names, example)

        label = names[0] if len(names) == 1 else None
        where = " and ".join(names)
        yield Correction(
            label, {"rule": "batch statistics"},
            f"in {where}, use the moving mean and variance: put the model in evaluation mode",
            around=around,
        )  # fmt: skip


def _with_batch_statistics(
    subject: Subject, names: list[str], example: Example
) -> dict[str, Array]:
    """Run the model; each named normalization uses the statistics of its input."""
    spec = subject.spec
    dtype = next(iter(example.inputs.values())).dtype
    spec = spec.astype(str(dtype)) if spec.dtype != str(dtype) else spec
    for name in names:
        tape = CachedRun(spec, example)
        (edge, *_) = [e for e in spec.edges if e.layer == name]
        x = tape.tensors[edge.inputs[0]].astype(np.float64)
        named = spec[name]
        (axis_map,) = named.layer.axis_map([x.shape])
        axes = tuple(k for k in range(x.ndim) if (0, k) not in axis_map.mixed)
        measured = {"mean": x.mean(axes), "variance": x.var(axes)}
        roles = {role: key for key, role in named.layer.weight_roles.items()}
        new = _with(named, **{roles[k]: v.astype(dtype) for k, v in measured.items()})
        spec = replace(spec, layers=tuple(new if n.name == name else n for n in spec.layers))
    return CachedRun(spec, example).outputs
