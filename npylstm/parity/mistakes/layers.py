"""Mistakes in layers that are not recurrent, and between layers of equal shape."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer
from npylstm.parity.corrections import Correction, Detail, Run, Subject
from npylstm.parity.examples import Example
from npylstm.parity.mistakes.cells import ACTIVATIONS, cell_activation
from npylstm.spec import LayerSpec

__all__ = [
    "activation", "directions_swapped", "epsilon", "layer_bias", "layer_kernel_transposed",
    "layers_swapped", "merge_mode", "normalization_permuted", "normalization_swapped", "padding",
    "training_mode", "weights_of_another_layer",
]  # fmt: skip

Found = Iterator[Correction]
Options = Iterable[tuple[Detail, LayerSpec]]

_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 1e-4, 1e-2)


def activation(subject: Subject) -> Found:
    """A layer applies another activation function, or none.

    A weights file does not store activations, and one name means different functions (``gelu``
    exact or by tanh, ``hard_sigmoid`` with two slopes, the slope of ``leaky_relu``: 0.3 in Keras 2,
    0.2 in Keras 3, 0.01 in PyTorch).
    """

    def change(named: LayerSpec) -> Options:
        layer = named.layer
        if isinstance(layer, (Dense, Conv1D, ActivationLayer)):
            for other in ACTIVATIONS:
                if other != layer.activation:
                    detail = {"from": str(layer.activation), "to": str(other)}
                    yield detail, replace(named, layer=replace(layer, activation=other))

    yield from cell_activation(subject)
    yield from subject.in_layers(
        change, "in {where}, compute with the activation {to} instead of {from}"
    )


def layer_bias(subject: Subject) -> Found:
    """A Dense, a convolution or a normalization computes without its bias."""

    def change(named: LayerSpec) -> Options:
        name = {Dense: "bias", Conv1D: "bias", BatchNormalization: "beta",
                LayerNormalization: "beta"}.get(type(named.layer))  # fmt: skip
        if name is not None and name in named.weights:
            zero = {name: np.zeros_like(named.weights[name])}
            yield {"of": name}, replace(named, weights={**named.weights, **zero})

    return subject.in_layers(change, "in {where}, add the {of}")


def layer_bias_doubled(subject: Subject) -> Found:
    """A Dense or a convolution adds its bias twice."""

    def change(named: LayerSpec) -> Options:
        if isinstance(named.layer, (Dense, Conv1D)) and "bias" in named.weights:
            twice = {"bias": 2 * named.weights["bias"]}
            yield {"of": "bias"}, replace(named, weights={**named.weights, **twice})

    return subject.in_layers(change, "in {where}, add the {of} once")


def layer_kernel_transposed(subject: Subject) -> Found:
    """A kernel of a Dense or a convolution is read with axes exchanged, or reversed in time.

    PyTorch's Linear stores (units, features). Frameworks compute a correlation and call it a
    convolution; ``numpy.convolve`` reverses the kernel.
    """

    def change(named: LayerSpec) -> Options:
        if isinstance(named.layer, Dense):
            kernel = named.weights["kernel"]
            if kernel.shape[0] == kernel.shape[1]:
                yield {"of": "rows and columns"}, _with(named, kernel=kernel.T)
            else:
                yield {"of": "memory order"}, _with(named, kernel=kernel.T.reshape(kernel.shape))
                other = kernel.reshape(kernel.shape[::-1]).T
                yield {"of": "memory order, the other way"}, _with(named, kernel=other)
        elif isinstance(named.layer, Conv1D):
            kernel = named.weights["kernel"]  # (size, features, units)
            yield {"of": "time"}, _with(named, kernel=kernel[::-1])
            for axes in itertools.permutations(range(3)):
                turned = kernel.transpose(axes)
                if axes == (0, 1, 2):
                    continue
                if turned.shape == kernel.shape:
                    yield {"of": f"axes {axes}"}, _with(named, kernel=turned)
                shaped = turned.reshape(kernel.shape)
                yield {"of": f"memory order {axes}"}, _with(named, kernel=shaped)

    return subject.in_layers(change, "in {where}, read the kernel in its own layout ({of})")


def _with(named: LayerSpec, **weights: Array) -> LayerSpec:
    return replace(named, weights={**named.weights, **weights})


def epsilon(subject: Subject) -> Found:
    """A normalization uses another epsilon, or adds it outside the square root.

    Keras 1e-3, PyTorch 1e-5, TensorFlow's layers 1e-3 or 1e-12, papers 1e-5. Source: keras.io
    BatchNormalization and LayerNormalization (epsilon), pytorch.org BatchNorm1d, LayerNorm (eps).
    """

    def change(named: LayerSpec) -> Options:
        layer = named.layer
        if isinstance(layer, (BatchNormalization, LayerNormalization)):
            for other in _EPSILONS:
                if other != layer.epsilon:
                    yield (
                        {"from": layer.epsilon, "to": other},
                        replace(named, layer=replace(layer, epsilon=other)),
                    )
        if isinstance(layer, BatchNormalization):
            deviation = np.sqrt(named.weights["moving_variance"].astype(np.float64))
            outside = (deviation + layer.epsilon) ** 2 - layer.epsilon
            yield (
                {"from": layer.epsilon, "to": layer.epsilon, "place": "outside the root"},
                _with(
                    named, moving_variance=outside.astype(named.weights["moving_variance"].dtype)
                ),
            )

    return subject.in_layers(change, "in {where}, use epsilon {to} instead of {from}")


def normalization_swapped(subject: Subject) -> Found:
    """A normalization exchanges gamma and beta, or mean and variance.

    Keras stores gamma, beta, mean, variance; PyTorch names them weight, bias, running_mean,
    running_var. All have one shape, so any order is accepted.
    """
    pairs = (("gamma", "beta"), ("moving_mean", "moving_variance"))

    def change(named: LayerSpec) -> Options:
        own = named.weights
        there = [pair for pair in pairs if pair[0] in own and pair[1] in own]
        if not isinstance(named.layer, (BatchNormalization, LayerNormalization)):
            return
        for chosen in ([p] for p in there):
            yield _exchange(named, chosen)
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
        names = [
            k for k in ("gamma", "beta", "moving_mean", "moving_variance") if k in named.weights
        ]
        if not isinstance(named.layer, BatchNormalization) or len(names) < 3:
            return
        for order in itertools.permutations(names):
            if list(order) != names:
                moved = {k: named.weights[o] for k, o in zip(names, order, strict=True)}
                yield {"of": f"{', '.join(names)} as {', '.join(order)}"}, _with(named, **moved)

    return subject.in_layers(change, "in {where}, read {of}")


def padding(subject: Subject) -> Found:
    """A convolution pads on other sides: ``same`` for ``causal``, before for after.

    TensorFlow's ``same`` adds the odd step at the end, PyTorch's ``padding=`` pads both equally,
    ``causal`` all at the start. Source: keras.io Conv1D (padding), pytorch.org Conv1d (padding).
    """

    def change(named: LayerSpec) -> Options:
        layer = named.layer
        if isinstance(layer, Conv1D):
            span = (layer.size - 1) * layer.dilation
            total = span if layer.same else sum(layer.padding)
            for before in range(total + 1):
                pads = (before, total - before)
                if layer.same or pads != layer.padding:
                    moved = replace(layer, same=False, padding=pads)
                    yield (
                        {"from": _pads(layer), "to": f"{pads[0]} before, {pads[1]} behind"},
                        (replace(named, layer=moved)),
                    )
            if not layer.same:
                same = replace(layer, same=True, padding=(0, 0))
                yield {"from": _pads(layer), "to": "same"}, replace(named, layer=same)
        elif isinstance(layer, Pool1D):
            if layer.operation == "mean":
                counted = replace(layer, count_padding=not layer.count_padding)
                said = "counted" if counted.count_padding else "not counted"
                yield {"from": "padding", "to": f"padding {said}"}, replace(named, layer=counted)
            total = layer.size - 1 if layer.same else sum(layer.padding)
            for before in range(total + 1):
                pads = (before, total - before)
                if layer.same or pads != layer.padding:
                    moved_pool = replace(layer, same=False, padding=pads)
                    yield {"from": "same" if layer.same else str(layer.padding),
                           "to": f"{pads[0]} before, {pads[1]} behind"}, replace(
                        named, layer=moved_pool
                    )  # fmt: skip

    return subject.in_layers(change, "in {where}, pad {to} instead of {from}")


def _pads(layer: Conv1D) -> str:
    if layer.same:
        return "same"
    return f"{layer.padding[0]} before, {layer.padding[1]} behind"


def merge_mode(subject: Subject) -> Found:
    """The two directions are merged in another way.

    Source: keras.io Bidirectional (merge_mode: concat, sum, mul, ave).
    """

    def change(named: LayerSpec) -> Options:
        layer = named.layer
        modes = ("sum", "mul", "ave")
        if isinstance(layer, Bidirectional) and layer.merge_mode in modes:
            for mode in modes:
                if mode != layer.merge_mode:
                    detail = {"from": layer.merge_mode, "mode": mode}
                    yield detail, replace(named, layer=replace(layer, merge_mode=mode))

    return subject.in_layers(change, "in {where}, merge the directions by {mode}, not by {from}")


def directions_swapped(subject: Subject) -> Found:
    """The weights of the two directions are exchanged, or the backward output is first.

    Source: pytorch.org nn.LSTM (``_reverse``), keras.io Bidirectional (forward weights first).
    """

    def change(named: LayerSpec) -> Options:
        layer = named.layer
        if not isinstance(layer, Bidirectional):
            return
        forward, backward = layer.directions.values()
        other = {"forward": "backward", "backward": "forward"}
        if forward.weight_shapes() == backward.weight_shapes():
            swapped = {
                f"{other[way]}/{key}": array
                for way, _, key, array in ((*k.partition("/"), a) for k, a in named.weights.items())
            }
            yield {"of": "weights"}, replace(named, weights=swapped)

    yield from subject.in_layers(
        change, "in {where}, exchange the weights of the forward and the backward direction"
    )
    yield from _outputs_joined_backward_first(subject)


def _outputs_joined_backward_first(subject: Subject) -> Found:
    """The concatenated output starts with the backward half."""
    from npylstm.ops.indexing import Slice
    from npylstm.ops.shaping import Concatenate
    from npylstm.parity.mistakes.graphs import insert_behind

    for named in subject.spec.layers:
        layer = named.layer
        if not isinstance(layer, Bidirectional) or layer.merge_mode != "concat":
            continue
        forward, backward = (half.output_size for half in layer.directions.values())
        axis = 2 if layer.return_sequences else 1
        spec = insert_behind(
            subject.spec,
            named.name,
            (
                (Slice(axis, forward, None, 1, backward), (0,)),
                (Slice(axis, 0, forward, 1, forward), (0,)),
                (Concatenate(axis), (1, 2)),
            ),
        )
        if spec is not None:
            yield Correction(
                named.name, {"of": "outputs"},
                f"in {named.name}, put the forward half of the outputs first", spec=spec,
            )  # fmt: skip


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
    norms = [n for n in subject.spec.layers if isinstance(n.layer, BatchNormalization)]
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
    from npylstm.parity.variants import CachedRun

    spec = subject.spec
    dtype = next(iter(example.inputs.values())).dtype
    spec = spec.astype(str(dtype)) if spec.dtype != str(dtype) else spec
    for name in names:
        tape = CachedRun(spec, example)
        (edge, *_) = [e for e in spec.edges if e.layer == name]
        x = tape.tensors[edge.inputs[0]].astype(np.float64)
        named = spec[name]
        layer = named.layer
        assert isinstance(layer, BatchNormalization)
        axes = tuple(k for k in range(x.ndim) if k != layer.axis_in(x.shape))
        fresh = {
            "moving_mean": x.mean(axes).astype(dtype),
            "moving_variance": x.var(axes).astype(dtype),
        }
        new = _with(named, **fresh)
        spec = replace(spec, layers=tuple(new if n.name == name else n for n in spec.layers))
    return CachedRun(spec, example).outputs
