"""Live PyTorch modules, drawn at random and from PyTorch's documentation and blogs, against PyTorch itself."""

from __future__ import annotations

import math
import random
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from backends import BACKENDS, COMPILED
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import example_count
from torch import nn
from torch_forwards import FORWARDS
from torch_parity import (
    TYPES,
    Array,
    assert_parity,
    build,
    normal,
    packed,
    predict,
    randomise,
    rms,
    run,
)

import npylstm
from npylstm import Model

# PyTorch's own, about how it runs what it runs; conversion must say nothing all the same.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


# ---------------------------------------------------------------- recurrent modules, drawn


@st.composite
def networks(draw: Any, mode: str) -> dict[str, Any]:
    units = draw(st.integers(2, 9))
    steps, batch = draw(st.integers(1, 30)), draw(st.integers(1, 7))
    lengths = st.lists(st.integers(1, steps), min_size=batch, max_size=batch)
    return {
        "options": {
            "input_size": draw(st.integers(1, 6)),
            "hidden_size": units,
            "num_layers": draw(st.integers(1, 3)),
            "bias": draw(st.booleans()),
            "batch_first": draw(st.booleans()),
            "bidirectional": draw(st.booleans()),
            **({"proj_size": draw(st.integers(0, units - 1))} if mode == "LSTM" else {}),
            **({"nonlinearity": mode.removeprefix("RNN_")} if "RNN" in mode else {}),
        },
        "example": (draw(st.integers(1, 3)), draw(st.integers(2, 6))),
        "batch": batch,
        "steps": steps,
        "given": draw(st.booleans()),
        "lengths": draw(st.none() | lengths),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "seed": draw(st.integers(0, 2**20)),
    }


def sequences(options: dict[str, Any], batch: int, steps: int, given: bool, seed: int) -> Any:
    """Inputs of a recurrent module, its states behind them if they are given."""
    axes = (batch, steps) if options["batch_first"] else (steps, batch)
    x = normal(*axes, options["input_size"], seed=seed)
    if not given:
        return x
    stack = options["num_layers"] * (1 + options["bidirectional"])
    projected = options.get("proj_size") or options["hidden_size"]
    h = normal(stack, batch, projected, seed=seed + 1)
    if "proj_size" not in options:
        return x, h
    return x, (h, normal(stack, batch, options["hidden_size"], seed=seed + 2))


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN_tanh", "RNN_relu"])
@settings(max_examples=example_count(25))
@given(data=st.data())
def test_recurrent_modules(mode: str, data: Any) -> None:
    net = data.draw(networks(mode))
    options = net["options"]
    rnn = getattr(nn, mode.partition("_")[0])(**options)
    example = sequences(options, *net["example"], net["given"], net["seed"])
    other = sequences(options, net["batch"], net["steps"], net["given"], net["seed"] + 1)

    def reference(x: torch.Tensor, states: Any = None) -> Any:
        return packed(rnn, x, net["lengths"], states)

    assert_parity(
        rnn, example, other, seed=net["seed"], types=(net["dtype"],),
        lengths=net["lengths"], reference=reference if net["lengths"] else None,
    )  # fmt: skip


@settings(max_examples=example_count(20))
@given(
    kind=st.sampled_from(["LSTM", "GRU", "RNN"]),
    bias=st.booleans(),
    features=st.integers(1, 5),
    units=st.integers(1, 7),
    steps=st.integers(1, 5),
    batch=st.integers(1, 7),
    dtype=st.sampled_from(["float32", "float64"]),
    relu=st.booleans(),
    given=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_cells_in_a_loop(
    kind: str, bias: bool, features: int, units: int, steps: int, batch: int, relu: bool,
    dtype: str, given: bool, seed: int,
) -> None:  # fmt: skip
    options = {"nonlinearity": "relu" if relu else "tanh"} if kind == "RNN" else {}
    cell = getattr(nn, f"{kind}Cell")(features, units, bias=bias, **options)

    def forward(self: Any, x: torch.Tensor, h: Any = None, c: Any = None) -> Any:
        state = h if c is None else (h, c)
        made = []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            made.append(state[0] if kind == "LSTM" else state)
        return torch.stack(made, 1), state

    def example(n: int) -> Any:
        x = normal(n, steps, features, seed=seed + n)
        states = [normal(n, units, seed=seed + k) for k in range(2 if kind == "LSTM" else 1)]
        return (x, *states) if given else x

    assert_parity(build(forward, cell=cell), example(2), example(batch), seed=seed, types=(dtype,))


# ---------------------------------------------------------------- PyTorch's own documentation


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_documentations_example(kind: str) -> None:
    rnn = getattr(nn, kind)(10, 20, 2)

    def example(steps: int, batch: int) -> Any:
        x, h0, c0 = normal(steps, batch, 10), normal(2, batch, 20), normal(2, batch, 20, seed=1)
        return (x, (h0, c0)) if kind == "LSTM" else (x, h0)

    assert_parity(rnn, example(5, 3), example(5, 1), example(11, 4), seed=None)


def test_the_documentations_example_of_lstm_cell() -> None:
    def forward(self: Any, input: Any, hx: Any, cx: Any) -> Any:
        output = []
        for i in range(input.size()[0]):
            hx, cx = self.rnn(input[i], (hx, cx))
            output.append(hx)
        return torch.stack(output, dim=0)

    def example(batch: int) -> Any:
        return normal(2, batch, 10), normal(batch, 20), normal(batch, 20, seed=1)

    assert_parity(build(forward, rnn=nn.LSTMCell(10, 20)), example(3), example(5), seed=None)


@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell"])
def test_the_documentations_example_of_other_cells(kind: str) -> None:
    def forward(self: Any, input: Any, hx: Any) -> Any:
        output = []
        for i in range(6):
            hx = self.rnn(input[i], hx)
            output.append(hx)
        return tuple(output)

    def example(batch: int) -> Any:
        return normal(6, batch, 10), normal(batch, 20)

    rnn = getattr(nn, kind)(10, 20)
    assert_parity(build(forward, rnn=rnn), example(3), example(1), seed=None)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_bare_cell(kind: str) -> None:
    def example(batch: int) -> Any:
        x, h, c = normal(batch, 10), normal(batch, 20), normal(batch, 20, seed=1)
        return (x, (h, c)) if kind == "LSTMCell" else (x, h)

    cell = getattr(nn, kind)(10, 20)
    assert_parity(cell, example(3), example(1), example(7))


# ---------------------------------------------------------------- two programs from blogs


class DampedSineWavePredictionModel(nn.Module):
    """Word for word."""

    def __init__(self, input_size, hidden_size, num_layers, output_size):
        super(DampedSineWavePredictionModel, self).__init__()  # noqa: UP008

        self.hidden_size = hidden_size
        self.num_layers = num_layers

        self.lstm = nn.LSTM(input_size, hidden_size, num_layers)
        self.out = nn.Linear(hidden_size, output_size)

    def forward(self, input, h, c):
        output, (h, c) = self.lstm(input, (h, c))
        output = self.out(output)
        return output, (h, c)


def generate_sequence(length: int, period: int, decay: float) -> list[float]:
    return [
        0.5 + 0.5 * math.sin(2 * math.pi * i / period) * math.exp(-decay * i) for i in range(length)
    ]


def generate_examples(length: int, n_patterns: int, output: int) -> tuple[Any, Any]:
    X, y = [], []
    for _ in range(n_patterns):
        p = random.randint(10, 20)
        d = random.uniform(0.01, 0.1)
        sequence = generate_sequence(length + output, p, d)
        X.append(sequence[:-output])
        y.append(sequence[-output:])
    X = torch.from_numpy(np.array(X)).float()
    y = torch.from_numpy(np.array(y)).float()
    # Mended: X.view(length, n_patterns, 1) mixed the patterns up.
    return X.t().reshape(length, n_patterns, 1), y.view(n_patterns, output)


def test_the_damped_sine_wave() -> None:
    length, n_features, hidden_size, num_layers, output_size, batch_size = 50, 1, 20, 2, 5, 10
    random.seed(0)
    torch.manual_seed(0)
    model = DampedSineWavePredictionModel(n_features, hidden_size, num_layers, output_size)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for _ in range(3):
        X, y = generate_examples(length, batch_size, output_size)
        model.zero_grad()
        h0 = torch.zeros(num_layers, batch_size, hidden_size)
        c0 = torch.zeros(num_layers, batch_size, hidden_size)
        output, (_, _) = model(X, h0, c0)
        criterion(output[-1], y).backward()
        optimizer.step()
    X, _ = generate_examples(length, 1, output_size)
    one = (X, torch.zeros(num_layers, 1, hidden_size), torch.zeros(num_layers, 1, hidden_size))
    X, _ = generate_examples(30, 4, output_size)
    other = (X, normal(num_layers, 4, hidden_size), normal(num_layers, 4, hidden_size, seed=1))
    assert_parity(model, one, other, seed=None)


class Predictor(nn.Module):
    """Word for word."""

    def __init__(self, inputDim, hiddenDim, outputDim):
        super(Predictor, self).__init__()  # noqa: UP008

        self.rnn = nn.LSTM(input_size = inputDim,
                            hidden_size = hiddenDim,
                            batch_first = True)  # fmt: skip
        self.output_layer = nn.Linear(hiddenDim, outputDim)

    def forward(self, inputs, hidden0=None):
        output, (hidden, cell) = self.rnn(inputs, hidden0)  # noqa: RUF059
        output = self.output_layer(output[:, -1, :])

        return output


def make_data_set(data_size: int, data_length: int = 50, freq: float = 60.0) -> tuple[Any, Any]:
    train_x, train_t = [], []
    for offset in range(data_size):
        train_x.append([[math.sin(2 * math.pi * (offset + i) / freq)] for i in range(data_length)])
        train_t.append([math.sin(2 * math.pi * (offset + data_length) / freq)])
    return torch.tensor(train_x), torch.tensor(train_t)


def test_the_predictor_of_sines() -> None:
    torch.manual_seed(0)
    train_x, train_t = make_data_set(100)
    model = Predictor(1, 5, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        idx = torch.randint(0, 99, (10,))
        optimizer.zero_grad()
        criterion(model(train_x[idx]), train_t[idx]).backward()
        optimizer.step()
    assert_parity(model, train_x[:1], train_x[3:7], train_x[5:6, :20], seed=None)
    # The initial state can be an input, too: forward's own second argument.
    with_state = (train_x[:2], (normal(1, 2, 5), normal(1, 2, 5, seed=1)))
    other = (train_x[:6, :30], (normal(1, 6, 5), normal(1, 6, 5, seed=1)))
    assert_parity(model, with_state, other, seed=None)


def test_an_argument_that_is_none() -> None:
    """The blog's own ``output = model(data, None)``."""
    model = Predictor(1, 5, 1)
    train_x, _ = make_data_set(8)
    assert_parity(model, (train_x[:2], None), (train_x[:6, :30],))
    assert_parity(model, {"inputs": train_x[:2], "hidden0": None}, (train_x[:6, :30],))


# ---------------------------------------------------------------- promises


@pytest.mark.parametrize(
    ("features", "units", "steps", "options"),
    [
        (1, 20, 50, {}),
        (1, 100, 5, {}),
        (64, 128, 60, {}),
        (9, 40, 30, {"num_layers": 3}),
        (9, 40, 30, {"bidirectional": True, "num_layers": 2}),
        (9, 40, 30, {"proj_size": 10}),
    ],
)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_rms_error_is_no_larger_than_torchs(
    kind: str, features: int, units: int, steps: int, options: dict[str, Any], backend: str
) -> None:
    """Long enough for errors to add up, wide enough for a mean to be steady. 1.5 is the promise."""
    if kind != "LSTM":
        options = {k: v for k, v in options.items() if k != "proj_size"}
    torch.manual_seed(11)
    rnn = getattr(nn, kind)(features, units, batch_first=True, **options)
    model = Model(nc.from_torch(build(lambda self, x: self.rnn(x)[0], rnn=rnn), normal(2, 5, features)), backend)  # fmt: skip
    x = normal(32, steps, features)
    (ours,), theirs = predict(model, x), run(rnn, x)[0]
    exact = run(rnn.double(), x.double())[0]
    assert rms(ours - exact) <= 1.5 * rms(theirs - exact)


def test_rms_error_of_a_whole_network(backend: str) -> None:
    torch.manual_seed(12)
    parts, forward = FORWARDS["self-attention"]
    module = build(forward, **parts())
    model = Model(nc.from_torch(module, normal(2, 5, 3)), backend)
    x = normal(40, 30, 3)
    (ours,), (theirs,) = predict(model, x), run(module, x)
    (exact,) = run(module.double(), x.double())
    assert rms(ours - exact) <= 1.5 * rms(theirs - exact)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_same_bits_for_any_batch_size(kind: str, dtype: str, lengths: bool) -> None:
    rnn = getattr(nn, kind)(5, 19, 2, batch_first=True, bidirectional=True).to(TYPES[dtype])
    out = nn.Linear(38, 3).to(TYPES[dtype])
    module = build(lambda self, x: torch.tanh(self.out(self.rnn(x)[0])), rnn=rnn, out=out)
    x = normal(13, 11, 5).to(TYPES[dtype])
    model = Model(nc.from_torch(module, x[:2]), COMPILED)
    ends = np.random.default_rng(0).integers(1, 12, 13) if lengths else None
    together = model.predict(x.numpy(), lengths=ends)
    for size in (1, 2, 3, 4, 7, 8, 12):
        for start in range(0, 13, size):
            rows = slice(start, start + size)
            part = None if ends is None else ends[rows]
            alone = model.predict(x[rows].numpy(), lengths=part)
            np.testing.assert_array_equal(alone, together[rows])


def test_recorded_cases_verify(tmp_path: Any) -> None:
    parts, forward = FORWARDS["attention"]
    module = build(forward, **parts()).eval()
    randomise(module, 5)
    spec = nc.from_torch(module, normal(2, 5, 3))

    def framework(x: Array) -> list[Array]:
        return run(module, torch.as_tensor(x))

    spec = nc.record(spec, framework)
    assert spec.cases
    npylstm.save(spec, tmp_path / "model.npz")
    for backend in BACKENDS:
        npylstm.load(tmp_path / "model.npz", backend).verify().check()
    wrong = nc.record(spec, lambda x: [y * 1.001 for y in framework(x)])
    assert not Model(wrong).verify().passed
