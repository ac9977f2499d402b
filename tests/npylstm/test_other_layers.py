"""Normalisation, embedding, convolution, pooling, PReLU: written out in loops, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from builders import agree, make_chain, make_layer

from npylstm import FormatError, Model, ModelSpec, ShapeError
from npylstm.activations import Activation
from npylstm.ops.cells import LSTM
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Embedding
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import PReLU
from npylstm.ops.shaping import Reshape
from npylstm.spec import Edge, TensorSpec

X = np.random.default_rng(0).normal(size=(2, 11, 4))
FIRST = ("batch", 4, "steps")
LAST = ("batch", "steps", 4)


def run(layer: Any, x: Any, shape: Any, backend: str = "numpy") -> tuple[Any, Any]:
    spec = make_chain(layer, shape=shape, dtype="float64")
    return Model(spec, backend).predict(x), spec["layer_0"].weights


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False)])
def test_batch_normalization(first: bool, scale: bool, center: bool) -> None:
    layer = BatchNormalization(4, 1 if first else 2, 1e-3, scale=scale, center=center)
    spec = make_chain(layer, shape=FIRST if first else LAST, dtype="float64")
    w = {k: np.abs(a) if "variance" in k else a for k, a in spec["layer_0"].weights.items()}
    spec = ModelSpec.chain(
        [type(spec.layers[0])("layer_0", layer, w)], spec.inputs[0], dtype="float64"
    )
    y = Model(spec, "numpy").predict(X.swapaxes(1, 2) if first else X)
    y = y.swapaxes(1, 2) if first else y
    gamma, beta = w.get("gamma", np.ones(4)), w.get("beta", np.zeros(4))
    for j in range(4):
        expected = (X[..., j] - w["moving_mean"][j]) / np.sqrt(w["moving_variance"][j] + 1e-3)
        np.testing.assert_allclose(y[..., j], expected * gamma[j] + beta[j], rtol=0, atol=1e-13)


@pytest.mark.parametrize("axes", [1, 2])
def test_layer_normalization(axes: int) -> None:
    shape = (11, 4)[-axes:]
    y, w = run(LayerNormalization(shape, 1e-5), X, ("batch", 11, 4))
    for index in np.ndindex(X.shape[: 3 - axes]):
        part = X[index]
        expected = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        np.testing.assert_allclose(y[index], expected * w["gamma"] + w["beta"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "dilation", "groups", "padding"),
    [(1, 1, 1, 1, (0, 0)), (3, 1, 1, 1, (1, 1)), (3, 2, 1, 2, (2, 0)), (2, 3, 4, 1, (0, 3)),
     (5, 1, 2, 4, (4, 4))],
)  # fmt: skip
def test_convolution(
    first: bool, size: int, stride: int, dilation: int, groups: int, padding: tuple[int, int],
    backend: str,
) -> None:  # fmt: skip
    layer = Conv1D(4, 8, size, stride, dilation, groups, padding, channels_first=first)
    y, w = run(layer, X.swapaxes(1, 2) if first else X, FIRST if first else LAST, backend)
    y = y.swapaxes(1, 2) if first else y
    padded = np.pad(X, ((0, 0), padding, (0, 0)))
    places = (padded.shape[1] - (size - 1) * dilation - 1) // stride + 1
    assert y.shape == (2, places, 8)
    for r, t, u in np.ndindex(y.shape):
        group = u // (8 // groups)
        features = range(group * (4 // groups), (group + 1) * (4 // groups))
        total = w["bias"][u] + sum(
            padded[r, t * stride + k * dilation, f] * w["kernel"][k, n, u]
            for k in range(size)
            for n, f in enumerate(features)
        )
        assert y[r, t, u] == pytest.approx(total, abs=1e-13)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"same": True, "stride": 3}, {"dilation": 3}, {"groups": 5, "use_bias": False},
     {"activation": Activation.of("softmax", axis=-1)}, {"activation": Activation.of("relu")}],
)  # fmt: skip
def test_convolutions_are_the_same_natively(first: bool, options: Any) -> None:
    layer = Conv1D(10, 150, 7, channels_first=first, **options)
    shape = ("batch", 10, "steps") if first else ("batch", "steps", 10)
    spec = make_chain(
        layer, LSTM(150, 5) if not first else Reshape(((0, 0), -1)), shape=shape, dtype="float64"
    )
    x = np.random.default_rng(1).normal(size=(3, 10, 90))
    x = x if first else x.swapaxes(1, 2)
    y, z = (Model(spec, backend).predict(x) for backend in BACKENDS)
    # 70 terms of about one each, one rounding each, in another order.
    np.testing.assert_allclose(y, z, rtol=0, atol=70 * np.finfo(float).eps)
    alone = np.concatenate([Model(spec, COMPILED).predict(x[k : k + 1]) for k in range(3)])
    np.testing.assert_array_equal(z, alone)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("operation", ["max", "mean"])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(2, 2, (0, 0)), (3, 1, (1, 1)), (4, 3, (2, 2))]
)
def test_pooling(
    first: bool, operation: str, counted: bool, size: int, stride: int, padding: Any
) -> None:
    layer = Pool1D(operation, size, stride, 1, padding, counted, first)
    y, _ = run(layer, X.swapaxes(1, 2) if first else X, FIRST if first else LAST)
    y = y.swapaxes(1, 2) if first else y
    for r, t, f in np.ndindex(y.shape):
        begin = t * stride - padding[0]
        there = [X[r, k, f] for k in range(begin, begin + size) if 0 <= k < 11]
        mean = sum(there) / (size if counted else len(there))
        assert y[r, t, f] == pytest.approx(max(there) if operation == "max" else mean, abs=1e-15)


def test_prelu() -> None:
    y, w = run(PReLU((4,), 2), X, LAST)
    np.testing.assert_array_equal(y, np.where(X > 0, X, w["alpha"] * X))
    y, w = run(PReLU((4,), 1), X.swapaxes(1, 2), FIRST)
    np.testing.assert_array_equal(y, np.where(X > 0, X, w["alpha"] * X).swapaxes(1, 2))
    y, w = run(PReLU((1,), 1), X, ("batch", 11, 4))
    np.testing.assert_array_equal(y, np.where(X > 0, X, w["alpha"] * X))


def test_embedding(backend: str) -> None:
    layer = Embedding(7, 3)
    spec = make_chain(layer, shape=("batch", "steps"))
    ids = np.array([[0, 6, 3], [1, 1, 2]])
    table = spec["layer_0"].weights["embeddings"]
    for given in (ids, ids.astype("float32"), ids.tolist()):
        np.testing.assert_array_equal(Model(spec, backend).predict(given), table[ids])
    for wrong, said in ((7, "id 7"), (-1, "id -1"), (1.5, "id 1.5"), (np.nan, "id nan")):
        bad = ids.astype(float)
        bad[1, 2] = wrong
        with pytest.raises(
            ShapeError, match=rf"layer_0: {said} at \(1, 2\): expected integers from 0 to 6"
        ):
            Model(spec, backend).predict(bad)


def test_a_wrong_id_is_found_wherever_it_is(backend: str) -> None:
    """Also where rows go through in parts: slices of a large batch, or threads."""
    layers = Embedding(7, 20), LSTM(20, 4)
    model = Model(make_chain(*layers, shape=("batch", "steps")), backend)
    ids = np.ones((300, 1000), np.float32)
    model.predict(ids)
    ids[233, 71] = 8
    for threads in (1, 2):
        for _ in range(2):
            with pytest.raises(ShapeError, match=r"layer_0: id 8 at \(233, 71\)"):
                model.predict(ids, threads=threads)


def test_a_session_goes_on_after_wrong_ids(backend: str) -> None:
    """In two places at once."""
    parts = [("batch", "steps"), ("batch", "steps")]
    layers = [make_layer(f"table_{k}", Embedding(7, 3), np.random.default_rng(k)) for k in (0, 1)]
    lstms = [make_layer(f"lstm_{k}", LSTM(3, 4), np.random.default_rng(k)) for k in (0, 1)]
    spec = ModelSpec(
        inputs=tuple(TensorSpec(name, shape) for name, shape in zip("ab", parts, strict=True)),
        layers=(*layers, *lstms), outputs=("y0", "y1"),
        edges=(
            Edge("table_0", ("a",), ("v0",)), Edge("lstm_0", ("v0",), ("y0",)),
            Edge("table_1", ("b",), ("v1",)), Edge("lstm_1", ("v1",), ("y1",)),
        ),
    )  # fmt: skip
    model = Model(spec, backend)
    right, wrong = np.full((1, 2), 3.0), np.full((1, 2), 9.0)
    expected = model.predict({"a": right, "b": right})
    session = model.session()
    with pytest.raises(ShapeError, match="table_0: id 9"):
        session.push({"a": wrong, "b": wrong})
    y = session.push({"a": right, "b": right})
    for name in ("y0", "y1"):
        np.testing.assert_array_equal(y[name], expected[name])


def test_embedding_makes_a_mask(backend: str) -> None:
    layers = Embedding(7, 3, mask_zero=True), LSTM(3, 4, masked=True)
    made = make_chain(layers[0], shape=("batch", "steps"))
    lstm = make_layer("lstm", layers[1], np.random.default_rng(1))
    spec = ModelSpec(
        inputs=made.inputs, layers=(*made.layers, lstm), outputs=("y", "mask"),
        edges=(Edge("layer_0", ("x",), ("vectors", "mask")), Edge("lstm", ("vectors", "mask"), ("y",))),
    )  # fmt: skip
    ids = np.array([[3, 6, 0], [0, 1, 2]])
    y = Model(spec, backend).predict(ids)
    np.testing.assert_array_equal(y["mask"], ids != 0)
    alone = Model(spec, backend).predict(ids[:1, :2])
    agree(y["y"][0], alone["y"][0], 3 + 4 + 1, backend)


def test_inputs_of_whole_numbers(backend: str) -> None:
    made = make_chain(Embedding(7, 3), shape=("batch", "steps"))
    spec = ModelSpec.chain(made.layers, TensorSpec("ids", ("batch", "steps"), integer=True))
    model = Model(spec, backend)
    assert model.predict(np.array([[1, 2]], np.uint8)).shape == (1, 2, 3)
    for wrong, said in ((0.5, "0.5"), (2**24 + 1, "1.67772e.07"), (np.inf, "inf")):
        with pytest.raises(
            ShapeError, match=rf"^ids: expected integers up to 16777215, got {said}"
        ):
            model.predict(np.array([[1, wrong]]))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (lambda: BatchNormalization(4, 1, -1.0), LAST, "epsilon: expected a number from 0 on, got -1"),
        (lambda: BatchNormalization(3, 2, 1e-5), LAST, "expected 3 features on axis 2"),
        (lambda: LayerNormalization((4,), 0.0), LAST, "epsilon: expected a positive number, got 0"),
        (lambda: LayerNormalization((), 1e-5), LAST, "shape: expected at least one axis"),
        (lambda: LayerNormalization((3,), 1e-5), LAST, r"axis: expected the last, of sizes \(3,\), got"),
        (lambda: Conv1D(4, 8, 0), LAST, "size: expected a positive integer, got 0"),
        (lambda: Conv1D(4, 8, 3, groups=3), LAST, "groups: expected a divisor of 4 and 8, got 3"),
        (lambda: Conv1D(4, 8, 3, padding=(1,)), LAST, "padding: expected two numbers"),
        (lambda: Conv1D(3, 8, 3), LAST, "expected 3 features, got"),
        (lambda: Conv1D(4, 8, 3), ("batch", 4), "expected an input of 3 axes"),
        (lambda: Pool1D("median", 2, 2), LAST, "operation: expected max or mean, got 'median'"),
        (lambda: PReLU((3,), 2), LAST, r"slopes \(3,\) on axis 2 do not fit|do not fit together"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(layer: Any, shape: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        make_chain(layer(), shape=shape)


def test_too_few_steps_are_named(backend: str) -> None:
    for layer, message in (
        (Conv1D(4, 8, 5), "at least 5 steps, got 3"),
        (Pool1D("max", 4, 1), "at least 4 steps, got 3"),
    ):
        with pytest.raises(ShapeError, match=f"layer_0: expected {message}"):
            run(layer, X[:, :3], LAST, backend)
