"""The oracle that plants mistakes, against PyTorch and Keras in float64: it must be right without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planted.functions import Maths
from planted.oracle import forward
from planted.program import Array, Call, Data, Layer, Program

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

FEATURES, UNITS, BATCH, STEPS = 3, 5, 4, 7
X = np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES))
LENGTHS = np.array([7, 2, 5, 1])
PLAIN: dict[str, Any] = {
    "features": FEATURES, "units": UNITS, "activation": "tanh", "recurrent_activation": "sigmoid",
    "return_sequences": True, "return_state": True, "go_backwards": False, "time_major": False,
    "masked": False, "zero_output_for_mask": False, "reset_after": True,
}  # fmt: skip


def oracle(layer: Layer, *inputs: Array, outputs: int = 1, **data: Any) -> list[Array]:
    """Run one layer in float64."""
    names = tuple(f"x{k}" for k in range(len(inputs)))
    made = tuple(f"y{k}" for k in range(outputs))
    program = Program({"layer": layer}, (Call("layer", names, made),), names, made)
    result = forward(program, Data(dict(zip(names, inputs, strict=True)), **data), Maths())
    return [result[name] for name in made]


def same(ours: Array, theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-13)


def split(letters: str, gates: str, *arrays: Array) -> dict[str, Array]:
    """Cut packed arrays into gates along the last axis."""
    return {
        f"{letter}_{gate}": part
        for letter, array in zip(letters.split(), arrays, strict=True)
        for gate, part in zip(gates, np.split(array, len(gates), -1), strict=True)
    }


GATES = {"lstm": "ifco", "gru": "zrh", "simple_rnn": "h"}
CLASSES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN"}


def keras_weights(layer: Any, kind: str, rng: np.random.Generator) -> dict[str, Array]:
    """Draw weights for a layer of Keras, and return them by gate."""
    drawn = [rng.normal(0, 0.6, w.shape) for w in layer.get_weights()]
    layer.set_weights(drawn)
    kernel, recurrent, bias = drawn
    if bias.ndim == 2:
        return split("W U b rb", GATES[kind], kernel, recurrent, *bias)
    return split("W U b", GATES[kind], kernel, recurrent, bias)


def make_keras(kind: str, **options: Any) -> Any:
    layer = getattr(keras.layers, CLASSES[kind])(
        UNITS, return_sequences=True, return_state=True, dtype="float64", **options
    )
    layer(X)
    return layer


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {}),
        ("lstm", {"go_backwards": True, "activation": "softsign"}),
        ("gru", {"reset_after": True}),
        ("gru", {"reset_after": False, "go_backwards": True}),
        ("simple_rnn", {"activation": "relu"}),
    ],
)
def test_recurrent_layers_of_keras(kind: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    layer = make_keras(kind, **options)
    weights = keras_weights(layer, kind, rng)
    states = [rng.normal(size=(BATCH, UNITS)) for _ in range(2 if kind == "lstm" else 1)]
    mask = rng.random((BATCH, STEPS)) < 0.6
    mask[:, 3] = True
    ours = Layer(kind, {**PLAIN, **options}, weights)
    names = ["y0", "y1", "y2"][: 1 + len(states)]
    given = {"y0": dict(zip("hc", states, strict=False))}
    for theirs, data in (
        (layer(X), {}),
        (layer(X, initial_state=states), {"state": given}),
        (layer(X, mask=mask), {"mask": mask}),
    ):
        for a, b in zip(oracle(ours, X, outputs=len(names), **data), theirs, strict=True):
            same(a, b)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [True, False])
def test_bidirectional_layers_of_keras(mode: str, sequences: bool) -> None:
    rng = np.random.default_rng(2)
    cell = keras.layers.GRU(UNITS, return_sequences=sequences, dtype="float64")
    layer = keras.layers.Bidirectional(cell, merge_mode=mode, dtype="float64")
    layer(X)
    # Keras turns zero_output_for_mask on in a bidirectional layer that returns sequences.
    options = {**PLAIN, "return_sequences": sequences, "return_state": False, "zero_output_for_mask": sequences}  # fmt: skip
    parts = {}
    for way, part in (("forward", layer.forward_layer), ("backward", layer.backward_layer)):
        config = {**options, "go_backwards": way == "backward"}
        parts[way] = Layer("gru", config, keras_weights(part, "gru", rng))
    ours = Layer("bidirectional", {"merge_mode": mode}, {}, parts)
    same(oracle(ours, X)[0], layer(X))
    mask = np.arange(STEPS) < LENGTHS[:, None]
    same(oracle(ours, X, mask=mask)[0], layer(X, mask=mask))


def torch_weights(module: Any, kind: str, suffix: str) -> dict[str, Array]:
    """Return the weights of an nn module by gate; its GRU has the order r z n."""
    arrays = [
        getattr(module, f"{name}_{suffix}").detach().numpy().T
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    if kind == "gru":
        return split("W U b rb", "rzh", *arrays)
    W, U, b, rb = arrays
    return split("W U b", GATES[kind], W, U, b + rb)


@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn"])
def test_packed_bidirectional_layers_of_torch(kind: str) -> None:
    torch.manual_seed(3)
    name = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}[kind]
    module = getattr(torch.nn, name)(
        FEATURES, UNITS, batch_first=True, bidirectional=True, dtype=torch.float64
    )
    config = {**PLAIN, "return_state": False, "zero_output_for_mask": True}
    parts = {
        way: Layer(kind, {**config, "go_backwards": back}, torch_weights(module, kind, suffix))
        for way, suffix, back in (("forward", "l0", False), ("backward", "l0_reverse", True))
    }
    ours = Layer("bidirectional", {"merge_mode": "concat"}, {}, parts)
    x = torch.as_tensor(X)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.as_tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(
            module(packed)[0], batch_first=True, total_length=STEPS
        )
        whole = module(x)[0]
    same(oracle(ours, X)[0], whole)
    same(oracle(ours, X, lengths=LENGTHS)[0], theirs)


def test_projected_lstm_of_torch() -> None:
    torch.manual_seed(4)
    module = torch.nn.LSTM(FEATURES, UNITS, proj_size=2, batch_first=True, dtype=torch.float64)
    weights = torch_weights(module, "lstm", "l0") | {"P": module.weight_hr_l0.detach().numpy().T}
    with torch.no_grad():
        y, (h, c) = module(torch.as_tensor(X))
    ours = oracle(Layer("lstm", {**PLAIN, "projection": 2}, weights), X, outputs=3)
    for a, b in zip(ours, (y, h[0], c[0]), strict=True):
        same(a, b)


@pytest.mark.parametrize("padding", ["same", "causal", "valid"])
def test_convolution_of_keras(padding: str) -> None:
    rng = np.random.default_rng(5)
    layer = keras.layers.Conv1D(4, 4, padding=padding, activation="elu", dtype="float64")
    layer(X)
    layer.set_weights([rng.normal(0, 0.6, w.shape) for w in layer.get_weights()])
    config = {"size": 4, "stride": 1, "dilation": 1, "groups": 1, "channels_first": False}
    config |= {"same": padding == "same", "padding": (3 * (padding == "causal"), 0), "activation": "elu"}  # fmt: skip
    kernel, bias = layer.get_weights()
    same(oracle(Layer("conv1d", config, {"kernel": kernel, "bias": bias}), X)[0], layer(X))


def test_normalisation() -> None:
    rng = np.random.default_rng(6)
    gamma, beta, mean = (rng.normal(size=FEATURES) for _ in range(3))
    variance = rng.uniform(0.5, 2, FEATURES)
    x = torch.as_tensor(X.swapaxes(1, 2).copy())
    tensors = [torch.as_tensor(a) for a in (mean, variance, gamma, beta)]
    batch = torch.nn.functional.batch_norm
    names = ("moving_mean", "moving_variance", "gamma", "beta")
    ours = Layer("batch_normalization", {"axis": -1, "epsilon": 1e-3}, dict(zip(names, (mean, variance, gamma, beta), strict=True)))  # fmt: skip
    same(oracle(ours, X)[0].swapaxes(1, 2), batch(x, *tensors, eps=1e-3))
    trained = batch(x, None, None, *tensors[2:], training=True, eps=1e-3)
    same(oracle(ours.slips_with(batch_statistics=True), X)[0].swapaxes(1, 2), trained)
    config = {"shape": [FEATURES], "epsilon": 1e-3, "centered": True}
    layer = Layer("layer_normalization", config, {"gamma": gamma, "beta": beta})
    normed = torch.nn.functional.layer_norm(torch.as_tensor(X), (FEATURES,), *tensors[2:], eps=1e-3)
    same(oracle(layer, X)[0], normed)


def test_masking_and_embedding_of_keras() -> None:
    x = X.copy()
    x[1, 4:] = -1.0
    layer = keras.layers.Masking(-1.0, dtype="float64")
    y, mask = oracle(Layer("masking", {"mask_value": -1.0}, {}), x, outputs=2)
    same(y, layer(x))
    same(mask, layer.compute_mask(x))
    table = np.random.default_rng(7).normal(size=(9, 4))
    words = keras.layers.Embedding(9, 4, mask_zero=True, dtype="float64")
    ids = np.array([[3, 8, 0], [1, 0, 0]])
    words(ids)
    words.set_weights([table])
    ours = Layer("embedding", {"mask_zero": True}, {"embeddings": table})
    y, mask = oracle(ours, ids, outputs=2)
    same(y, words(ids))
    same(mask, words.compute_mask(ids))


def test_attention_of_torch() -> None:
    torch.manual_seed(8)
    x = torch.as_tensor(X)
    config = {"masked": [], "causal": False, "score": "dot", "return_scores": False}
    plain = torch.nn.functional.scaled_dot_product_attention(x, x, x, scale=1.0)
    same(oracle(Layer("attention", config, {}), X, X)[0], plain)
    heads, units = 2, 6
    x6 = torch.randn(BATCH, STEPS, units, dtype=torch.float64)
    module = torch.nn.MultiheadAttention(units, heads, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(module.in_proj_bias)
    torch.nn.init.normal_(module.out_proj.bias)
    with torch.no_grad():
        theirs = module(x6, x6, x6)[0].numpy()
        kernels = np.split(module.in_proj_weight.numpy().T, 3, 1)
        biases = np.split(module.in_proj_bias.numpy(), 3)
        out, out_bias = module.out_proj.weight.numpy().T, module.out_proj.bias.numpy()
    weights = {"output_kernel": out.reshape(heads, 3, units), "output_bias": out_bias}
    for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
        weights[f"{name}_kernel"] = kernel.reshape(units, heads, 3)
        weights[f"{name}_bias"] = bias.reshape(heads, 3)
    config = {"masked": [], "causal": False, "window": 0, "key_units": 3, "units": units, "return_scores": False}  # fmt: skip
    x6 = x6.numpy()
    same(oracle(Layer("multi_head_attention", config, weights), x6, x6)[0], theirs)


NAMES = {
    "hard_sigmoid_sixth": "hard_sigmoid", "hard_silu": "hard_silu", "silu": "silu", "elu": "elu", "selu": "selu",
    "celu": "celu", "softplus": "softplus", "softsign": "softsign", "mish": "mish", "relu": "relu",
    "hard_tanh": "hard_tanh", "log_sigmoid": "log_sigmoid", "tanh_shrink": "tanh_shrink",
    "soft_shrink": "soft_shrink", "hard_shrink": "hard_shrink", "squareplus": "squareplus", "sigmoid": "sigmoid",
    "sparse_plus": "sparse_plus", "sparse_sigmoid": "sparse_sigmoid", "softmax": "softmax", "log_softmax": "log_softmax",
}  # fmt: skip


def test_activations() -> None:
    x = np.linspace(-4, 4, 41).reshape(1, -1)
    for ours, theirs in NAMES.items():
        same(Maths().activate(ours, x), getattr(keras.activations, theirs)(x))
    for ours, approximate in (("gelu", "none"), ("gelu_tanh", "tanh")):  # Keras has float32 factors
        y = torch.nn.functional.gelu(torch.as_tensor(x), approximate=approximate)
        same(Maths().activate(ours, x), y)
