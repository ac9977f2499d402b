"""Live PyTorch modules, drawn at random or written as people write them, against both back ends.

Every module is converted in float32 and in float64 (in a sample, in one of them), and compared with
PyTorch's own float64 run of the same weights, for another batch and another length than the example's.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from backends import BACKENDS, COMPILED
from builders import agree
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import example_count, one_of
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import npylstm
from npylstm import Model

Array = np.ndarray[Any, Any]

# PyTorch's own, about how it runs what it runs; conversion must say nothing all the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

TYPES = {"float32": torch.float32, "float64": torch.float64}

# float32: two correct programs differ in the order of their sums. PyTorch's own rms error tells how
# large such noise is in this very module; the largest of some thousand values is about 4 times their
# rms, and one program's rms may be 4 times the other's where that one is lucky. And where it happens
# to be exact, a chain of a few functions on values of size one may still lose 8 units in the last
# place.
NOISE_FACTOR = 16
FLOOR_ULPS = 8
# float64: a unit in the last place is 2e-16 and noise grows some hundredfold over 30 steps and 3
# layers. The smallest mistake that is worth the name, a constant in float32, shows at 1e-8.
FLOAT64_TOLERANCE = 1e-12


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Several threads take longer for tensors this small, much longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def randomise(module: nn.Module, seed: int) -> None:
    """Weights that tell gates apart, biases that are never zero, running statistics of a kind."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.dtype.is_floating_point:
                continue
            spread = 0.8 / math.sqrt(tensor.shape[-1]) if tensor.ndim > 1 else 0.5
            values = rng.uniform(-1, 1, tuple(tensor.shape)) * spread
            values = values + 0.05 * np.sign(values)
            if name.endswith("running_var"):
                values = np.abs(values) + 0.3
            tensor.copy_(torch.as_tensor(values))


def build(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A module with this forward and these submodules."""
    made = type("Forward", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Numbers that are whole in float32 and so the same in float64."""
    values = scale * np.random.default_rng([seed, *shape]).normal(size=shape)
    return torch.as_tensor(values.astype(np.float32))


def whole(*shape: int, below: int, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng([seed, *shape]).integers(0, below, shape))


def cast(example: Any, dtype: torch.dtype) -> Any:
    """The same example in another element type; whole numbers stay as they are."""

    def change(x: Any) -> Any:
        floating = isinstance(x, torch.Tensor) and x.dtype.is_floating_point
        return x.to(dtype) if floating else x

    return pytree.tree_map(change, example)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """So that torch.zeros(...) in a forward is of the module's own type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def flat(values: Any) -> list[Array]:
    return [v.detach().numpy().copy() for v in pytree.tree_leaves(values) if v is not None]


def run(module: Callable[..., Any], example: Any) -> list[Array]:
    """PyTorch's own answer, as a list; the example is not touched."""
    if isinstance(module, nn.Module):
        module.eval()
    example = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, example)
    with torch.no_grad():
        if isinstance(example, dict):
            return flat(module(**example))
        return flat(module(*example) if isinstance(example, tuple) else module(example))


def predict(model: Model, example: Any, **options: Any) -> list[Array]:
    arrays = flat(example)
    before = [a.copy() for a in arrays]
    y = model.predict(arrays if len(arrays) > 1 else arrays[0], **options)
    for mine, was in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(mine, was, "predict wrote into its inputs")
    if isinstance(y, dict):
        assert list(y) == [t.name for t in model.outputs]
        return list(y.values())
    return [y]


def assert_close(ours: list[Array], theirs: list[Array], exact: list[Array]) -> None:
    """Compare outputs one by one: shape, element type, nan and infinities, and numbers."""
    assert len(ours) == len(theirs) == len(exact)
    for k, (y, torchs, truth) in enumerate(zip(ours, theirs, exact, strict=True)):
        assert y.shape == torchs.shape, f"output {k}"
        assert y.dtype == torchs.dtype, f"output {k}"
        finite = np.isfinite(truth)
        np.testing.assert_array_equal(y[~finite], truth[~finite], f"output {k}")
        size = np.maximum(1, np.abs(truth[finite]))
        if y.dtype == np.float64:
            tolerance = np.full(size.shape, FLOAT64_TOLERANCE * size.max(initial=1))
        else:
            noise = rms(torchs[finite].astype(np.float64) - truth[finite])
            tolerance = NOISE_FACTOR * noise + FLOOR_ULPS * np.finfo(np.float32).eps * size
        with np.errstate(invalid="ignore"):
            strain = np.abs(y[finite].astype(np.float64) - truth[finite]) / tolerance
        strain = np.where(np.isnan(strain), np.inf, strain)
        assert strain.max(initial=0) <= 1, (
            f"output {k} of type {y.dtype}: {strain.max():.3g} times the tolerance, "
            f"{(strain > 1).sum()} of {strain.size} values"
        )


def assert_parity(
    module: nn.Module,
    example: Any,
    *others: Any,
    reference: Callable[..., Any] | None = None,
    lengths: list[int] | None = None,
    seed: int | None = 0,
    types: Sequence[str] | None = None,
    saved_as: Any = None,
) -> None:
    """Convert with the example and compare for it and for all others.

    ``reference`` computes what is expected, if it is not the module itself (for ``lengths``);
    ``seed`` None leaves the weights alone; ``saved_as`` is a file to take the model through;
    ``types`` are both, in a sample one of them, unless given.
    """
    types = types or one_of(list(TYPES))
    if seed is not None:
        randomise(module, seed)
    asked = others if lengths else (example, *others)
    answers = {}
    specs = {}
    for name in ("float32", "float64"):
        dtype = TYPES[name]
        module.to(dtype)
        with default_type(dtype):
            answers[name] = [run(reference or module, cast(x, dtype)) for x in asked]
            if name in types:
                specs[name] = nc.from_torch(module, cast(example, dtype))
                assert specs[name].dtype == name
    if saved_as is not None:  # through the file, for all that the file must hold
        for name, spec in specs.items():
            npylstm.save(spec, saved_as)
            specs[name] = npylstm.load(saved_as, "numpy").spec
    for name, spec in specs.items():
        for backend in BACKENDS:
            model = Model(spec, backend)
            for x, theirs, exact in zip(asked, answers[name], answers["float64"], strict=True):
                ours = predict(model, cast(x, TYPES[name]), lengths=lengths)
                assert_close(ours, theirs, exact)


def packed(
    rnn: nn.Module, x: torch.Tensor, lengths: list[int], states: Any = None
) -> tuple[torch.Tensor, Any]:
    """A recurrent layer around which sequences are packed, and padded again."""
    first = bool(rnn.batch_first)
    sequences = pack_padded_sequence(x, torch.tensor(lengths), first, enforce_sorted=False)
    y, after = rnn(sequences, states)
    steps = x.size(1) if first else x.size(0)
    return pad_packed_sequence(y, first, total_length=steps)[0], after


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


# ---------------------------------------------------------------- forward, as people write it

Parts = dict[str, Any]


def lstm(batch_first: bool = True, **options: Any) -> Parts:
    return {"rnn": nn.LSTM(3, 6, batch_first=batch_first, **options), "out": nn.Linear(6, 2)}


def both(**options: Any) -> Parts:
    return lstm(bidirectional=True, **options)


def _tutorial(self: Any, x: Any) -> Any:
    h0 = torch.zeros(2, x.size(0), 6).requires_grad_()
    c0 = torch.zeros(2, x.size(0), 6).requires_grad_()
    out, (_, _) = self.rnn(x, (h0.detach(), c0.detach()))
    return self.out(out[:, -1, :])


def _zeros_of_new_memory(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    h = x.new_empty(2, x.size(0), 6).zero_()
    return self.out(self.rnn(x, (h, x.new_empty(h.shape).fill_(0.5)))[0][:, -1])


def _zeros_on_a_device(self: Any, x: Any) -> Any:
    device = "cuda" if x.is_cuda else "cpu"
    h0 = torch.zeros(2, x.size(0), 6).to(device)
    c0 = torch.zeros(2, x.size(0), 6, device=x.device, dtype=x.dtype)
    return self.out(self.rnn(x, (h0, c0))[0][:, -1])


def _reshaped_and_back(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    steps = self.out(y.reshape(-1, 6))
    return steps.view(x.size(0), x.size(1), -1)


def _batch_size_by_shape(self: Any, x: Any) -> Any:
    batch_size, seq_len, _ = x.shape
    y, (h, _) = self.rnn(x)
    y = self.out(y.contiguous().view(batch_size * seq_len, 6)).view(batch_size, seq_len, 2)
    return y, h.view(1, batch_size, 6).squeeze(0)


def _layers_and_directions(self: Any, x: Any) -> Any:
    _, (h, _) = self.rnn(x)
    h = h.view(2, 2, x.size(0), 6)
    return torch.cat([h[-1, 0], h[-1, 1]], dim=-1)


def _attention(self: Any, x: Any) -> Any:
    y, (h, _) = self.rnn(x)
    scores = torch.bmm(y, h[-1].unsqueeze(2)).squeeze(2)
    weights = F.softmax(scores, dim=1)
    return torch.bmm(weights.unsqueeze(1), y).squeeze(1), weights


def _additive_attention(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    weights = torch.softmax(torch.tanh(self.out(y))[..., :1], dim=1)
    return (weights * y).sum(dim=1)


def _bmm_of_transposed(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    scores = torch.matmul(y, y.transpose(1, 2)) / math.sqrt(6)
    return torch.softmax(scores, -1) @ y


def _in_place(self: Any, x: Any) -> Any:
    y, _ = self.rnn(x)
    y = y.mul_(3).relu_()
    y += 0.5
    y = y.add_(x[..., :1]).sub_(0.1)
    y.div_(2)
    return torch.tanh_(self.out(y)).clamp_(-0.5, 0.5)


def _in_place_on_its_input(self: Any, x: Any) -> Any:
    x.mul_(2)
    x -= 1
    return self.rnn(x)[0]


def _zeros_filled_in_place(self: Any, x: Any) -> Any:
    h = torch.empty(1, x.size(0), 6).zero_()
    return self.rnn(x, (h, torch.zeros_like(h)))[0]


def _learned_state(self: Any, x: Any) -> Any:
    h = self.h0.expand(-1, x.size(0), -1).contiguous()
    c = self.c0.repeat(1, x.size(0), 1)
    return self.rnn(x, (h, c))[0]


def _ones_for_states(self: Any, x: Any) -> Any:
    h = x.new_ones(1, x.size(0), 6)
    c = torch.full((1, x.size(0), 6), 0.5, dtype=x.dtype)
    return self.rnn(x, (h, c))


def _state_handed_on(self: Any, x: Any) -> Any:
    _, state = self.rnn(x)
    y, (h, c) = self.rnn(x * 0.5, state)
    return y, h, c


def _encoder_and_decoder(self: Any, x: Any) -> Any:
    _, (h, c) = self.encoder(x)
    return self.out(self.decoder(x.flip(1), (h, c))[0])


def _repeated_code(self: Any, x: Any) -> Any:
    _, (h, _) = self.encoder(x)
    code = h[-1].unsqueeze(1).repeat(1, x.size(1), 1)
    return self.out(self.decoder(code)[0])


def _residual(self: Any, x: Any) -> Any:
    y = self.first(x)[0]
    y = y + self.second(y)[0]
    return self.out(F.relu(y))


def _arithmetic(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    y = (1 - y) / 3 + y**2 - 2 * y
    y = -y / (3 + y.abs()) + 1 / (2 + y * y) - (0.5 + y)
    y = torch.add(y, x[..., :1], alpha=2) - torch.sub(y, 0.25, alpha=3)
    return y * x[:, :, 1:2] + torch.rsub(y, x[..., 2:], alpha=1)


def _functions(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    a = torch.sqrt(y.abs() + 0.1) + torch.exp(y) + torch.log(y * y + 1) + torch.log1p(y * y)
    b = torch.sin(y) * torch.cos(y) + torch.rsqrt(y * y + 1) + torch.expm1(y) + y.square()
    return torch.maximum(a, b) + torch.minimum(a, y) + torch.sign(y) + (y * y + 1) ** 0.5


def _gated(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    value, gate = y.chunk(2, dim=-1)
    a, b, c = torch.split(y, 2, dim=2)
    d, e = y.split([1, 5], dim=-1)
    return value * torch.sigmoid(gate), a + b - c, d * e


def _slices(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return (
        y[:, ::2], y[:, 1:-1], y[:, -3:], y[:, 1::3, 1:4], y[..., -1], y[:, 0], y.select(2, 3),
        y.narrow(2, 1, 2), y[:, -2, ::5],
    )  # fmt: skip


def _reductions(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return (
        y.mean(1), y.mean(dim=-1, keepdim=True), y.sum(1), y.max(1)[0], y.max(dim=1).values,
        y.min(dim=2).values, torch.amax(y, 1), y.amin(dim=(1, 2)), torch.mean(y, (1, 2)),
    )  # fmt: skip


def _pooled(self: Any, x: Any) -> Any:
    y, (h, _) = self.rnn(x)
    return self.out(y.mean(1)) + self.out(torch.max(y, dim=1)[0]) + self.out(h[-1])


def _axes(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    a = y.permute(1, 0, 2)
    b = y.transpose(1, 2).unsqueeze(-1)
    return a, b.squeeze(-1).permute(0, 2, 1), y.unsqueeze(1).squeeze(1), y.permute(0, 2, 1)


def _flattened(self: Any, x: Any) -> Any:
    h = self.rnn(x)[1][0]
    a = h.permute(1, 0, 2).reshape(x.size(0), -1)
    b = torch.flatten(h.transpose(0, 1), 1)
    return a + b, h.transpose(0, 1).contiguous().view(-1, 12), b.unflatten(1, (2, 6))


def _stacked(self: Any, x: Any) -> Any:
    y, (h, c) = self.rnn(x)
    both = torch.stack([h, c])
    return both, torch.stack((y, y * 2), dim=1), torch.stack([y, y], -1), torch.cat([h, c], dim=2)


def _results_by_name(self: Any, x: Any) -> Any:
    y, (h, c) = self.rnn(x)
    return {"prediction": self.out(y[:, -1]), "state": [h, (c,)]}


def _results_repeated(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return y, y, x, y[:, -1]


def _mean_by_hand(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return y.sum(1) / x.size(1) + y.sum(1) * (1.0 / y.shape[1])


def _last_by_size(self: Any, x: Any) -> Any:
    return self.rnn(x)[0][:, x.size(1) - 1]


def _forwards_and_backwards(self: Any, x: Any) -> Any:
    y = self.rnn(x)[0]
    return torch.cat((y[:, -1, :6], y[:, 0, 6:]), dim=1)


def _inputs_of_one_step(self: Any, x: Any) -> Any:
    y = self.rnn(x[:, :1])[0]
    return y, y.squeeze(1)


def _differences(self: Any, x: Any) -> Any:
    return self.rnn(x[:, 1:] - x[:, :-1])[0]


def _zeros_of_weights(self: Any, x: Any) -> Any:
    weight = next(self.parameters())
    return self.rnn(x, (weight.new_zeros(1, x.size(0), 6), weight.new_zeros(1, x.size(0), 6)))[0]


def _feeding_itself(self: Any, x: Any) -> Any:
    x = x[:, 0]
    h = torch.zeros(x.size(0), 6)
    c = torch.zeros(x.size(0), 6)
    made = []
    for _ in range(4):
        h, c = self.cell(x, (h, c))
        x = self.out(h)
        made.append(x)
    return torch.stack(made, dim=1)


FORWARDS: dict[str, tuple[Callable[[], Parts], Callable[..., Any]]] = {
    "output[:, -1, :]": (lstm, lambda self, x: self.out(self.rnn(x)[0][:, -1, :])),
    "output[-1]": (lambda: lstm(False), lambda self, x: self.out(self.rnn(x)[0][-1])),
    "a tuple": (lambda: lstm(num_layers=2), lambda self, x: self.rnn(x)),
    "h[-1]": (lambda: lstm(num_layers=2), lambda self, x: self.out(self.rnn(x)[1][0][-1])),
    "h[0] and c[1]": (lambda: lstm(num_layers=2), lambda self, x: (self.rnn(x)[1][0][0], self.rnn(x)[1][1][1])),
    "h[-2], h[-1]": (lambda: both(num_layers=2), lambda self, x: (lambda h: torch.cat([h[-2], h[-1]], 1))(self.rnn(x)[1][0])),
    "h.squeeze(0)": (lstm, lambda self, x: self.out(self.rnn(x)[1][0].squeeze(0))),
    "layers and directions": (lambda: both(num_layers=2), _layers_and_directions),
    "zeros as in tutorials": (lambda: lstm(num_layers=2), _tutorial),
    "zeros of new memory": (lambda: lstm(num_layers=2), _zeros_of_new_memory),
    "zeros on a device": (lambda: lstm(num_layers=2), _zeros_on_a_device),
    "zeros filled in place": (lstm, _zeros_filled_in_place),
    "ones for states": (lstm, _ones_for_states),
    "learned states": (lambda: {**lstm(), "h0": nn.Parameter(torch.zeros(1, 1, 6)), "c0": nn.Parameter(torch.zeros(1, 1, 6))}, _learned_state),
    "state handed on": (lstm, _state_handed_on),
    "encoder, decoder": (lambda: {"encoder": nn.LSTM(3, 6, batch_first=True), "decoder": nn.LSTM(3, 6, batch_first=True), "out": nn.Linear(6, 3)}, _encoder_and_decoder),
    "repeated code": (lambda: {"encoder": nn.LSTM(3, 6, batch_first=True), "decoder": nn.GRU(6, 4, batch_first=True), "out": nn.Linear(4, 3)}, _repeated_code),
    "residual": (lambda: {"first": nn.GRU(3, 6, batch_first=True), "second": nn.GRU(6, 6, batch_first=True), "out": nn.Linear(6, 3)}, _residual),
    "reshape(-1, H)": (lstm, _reshaped_and_back),
    "batch size by shape": (lstm, _batch_size_by_shape),
    "attention": (lstm, _attention),
    "additive attention": (lstm, _additive_attention),
    "self-attention": (lstm, _bmm_of_transposed),
    "in place": (lstm, _in_place),
    "in place on its input": (lstm, _in_place_on_its_input),
    "arithmetic": (lambda: {"rnn": nn.LSTM(3, 1, batch_first=True)}, _arithmetic),
    "functions": (lstm, _functions),
    "chunk and split": (lstm, _gated),
    "slices": (lstm, _slices),
    "reductions": (lstm, _reductions),
    "pooled": (lstm, _pooled),
    "axes": (lstm, _axes),
    "flattened": (lambda: lstm(num_layers=2), _flattened),
    "stacked": (lstm, _stacked),
    "results by name": (lstm, _results_by_name),
    "results repeated": (lstm, _results_repeated),
    "mean by hand": (lstm, _mean_by_hand),
    "last by size": (lstm, _last_by_size),
    "both ends": (both, _forwards_and_backwards),
    "one step": (lstm, _inputs_of_one_step),
    "differences": (lstm, _differences),
    "an axis behind a slice": (lstm, lambda self, x: self.rnn(x)[0][:, -2:, None]),
    "a slice flattened": (lstm, lambda self, x: self.rnn(x)[0][:, -2:].reshape(x.size(0), -1)),
    "two last steps": (lstm, lambda self, x: self.rnn(x)[0][:, -2:].reshape(-1, 12) @ torch.ones(12, 2)),
    "half rows": (lstm, lambda self, x: self.rnn(x)[0].reshape(-1, 3)),
    "swapaxes": (lstm, lambda self, x: torch.swapaxes(self.rnn(x)[0], 1, 2)),
    "y.mT": (lstm, lambda self, x: self.rnn(x)[0] @ self.rnn(x)[0].mT),
    "movedim": (lstm, lambda self, x: self.rnn(x)[0].movedim(1, 2)),
    "zeros of a weight's type": (lstm, _zeros_of_weights),
    "mean and number of steps": (lstm, lambda self, x: self.rnn(x)[0] * x.size(1)),
    "in place, behind BatchNorm": (lambda: {**lstm(), "norm": nn.BatchNorm1d(3)}, lambda self, x: self.rnn(F.relu(self.norm(x.transpose(1, 2)), inplace=True).transpose(1, 2))[0]),
    "step by step": (lambda: {"cell": nn.LSTMCell(3, 6), "out": nn.Linear(6, 3)}, _feeding_itself),
    "dropout as a function": (lstm, lambda self, x: F.dropout(self.rnn(x)[0], 0.5, self.training)),
    "log_softmax": (lstm, lambda self, x: F.log_softmax(self.out(self.rnn(x)[0]), dim=2)),
    "softmax over steps that come first": (lambda: lstm(False), lambda self, x: torch.softmax(self.rnn(x.permute(1, 0, 2))[0], 0).sum(0)),
    "permuted for batch_first=False": (lambda: lstm(False), lambda self, x: self.rnn(x.permute(1, 0, 2))[0].permute(1, 0, 2)),
    "weights of a Linear by hand": (lstm, lambda self, x: self.rnn(x)[0] @ self.out.weight.t() + self.out.bias),
    "addmm": (lstm, lambda self, x: torch.addmm(self.out.bias, self.rnn(x)[1][0][0], self.out.weight.t())),
    "F.linear": (lstm, lambda self, x: F.linear(self.rnn(x)[0], self.out.weight)),
    "a scalar parameter": (lambda: {**lstm(), "scale": nn.Parameter(torch.zeros(())), "shift": nn.Parameter(torch.zeros(6))}, lambda self, x: self.rnn(x)[0] * self.scale + self.shift),
    "a buffer": (lambda: {**lstm(), "norm": nn.BatchNorm1d(3)}, lambda self, x: self.rnn((x - self.norm.running_mean) / self.norm.running_var)[0]),
    "nothing but the input": (lambda: {}, lambda self, x: x[:, -1] * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.one_in(2)
def test_forward_code(name: str, tmp_path: Any) -> None:
    parts, forward = FORWARDS[name]
    examples = [normal(2, 5, 3), normal(1, 9, 3), normal(6, 8, 3)]
    assert_parity(build(forward, **parts()), *examples, saved_as=tmp_path / "model.npz")


@pytest.mark.parametrize("name", ["output[:, -1, :]", "output[-1]", "h[-2], h[-1]", "zeros as in tutorials",
                                  "attention", "reshape(-1, H)", "learned states", "repeated code",
                                  "batch size by shape", "layers and directions", "flattened"])  # fmt: skip
def test_examples_of_one_sample(name: str) -> None:
    parts, forward = FORWARDS[name]
    one = normal(5, 1, 3) if name == "output[-1]" else normal(1, 5, 3)
    assert_parity(build(forward, **parts()), one, normal(4, 7, 3))


def test_sizes_of_the_example_that_happen_to_be_equal() -> None:
    parts, forward = FORWARDS["attention"]
    assert_parity(build(forward, **parts()), normal(3, 3, 3), normal(4, 7, 3))
    rnn = nn.LSTM(4, 4, 4, batch_first=True)
    example = (normal(4, 4, 4), (normal(4, 4, 4, seed=1), normal(4, 4, 4, seed=2)))
    other = (normal(2, 9, 4), (normal(4, 2, 4, seed=1), normal(4, 2, 4, seed=2)))
    assert_parity(rnn, example, other)


def test_a_length_that_the_example_did_not_reach() -> None:
    """Slices are cut short, as in Python, where the sequence is shorter than the example."""
    module = build(
        lambda self, x: (self.rnn(x)[0][:, :4].sum(1), self.rnn(x)[0][:, -4:].mean(1)), **lstm()
    )
    assert_parity(module, normal(2, 9, 3), normal(3, 2, 3), normal(3, 4, 3), normal(1, 30, 3))


# ---------------------------------------------------------------- how modules are put together


class Last(nn.Module):
    def forward(self, outputs: Any) -> Any:
        return outputs[0][:, -1]


class Block(nn.Module):
    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.rnn = nn.GRU(features, units, batch_first=True, bidirectional=True)
        self.after = nn.Sequential(nn.Linear(2 * units, features), nn.ReLU(), nn.Dropout())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.after(self.rnn(self.norm(x))[0])


def test_sequential() -> None:
    module = nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.LSTM(4, 6, 2, batch_first=True, dropout=0.3), Last(),
        nn.Dropout(0.5), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2), nn.Identity(),
    )  # fmt: skip
    assert_parity(module, normal(2, 5, 3), normal(6, 9, 3))


def test_nested_modules() -> None:
    module = nn.Sequential(Block(3, 4), nn.Sequential(Block(3, 2), Block(3, 5)))
    assert_parity(module, normal(2, 5, 3), normal(6, 9, 3))


def test_modules_in_lists_and_dictionaries() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = layer(x)[0]
        return {name: head(x[:, -1]) for name, head in self.heads.items()}

    layers = nn.ModuleList(nn.LSTM(n, 5, batch_first=True) for n in (3, 5, 5))
    heads = nn.ModuleDict({"mean": nn.Linear(5, 1), "spread": nn.Linear(5, 2)})
    assert_parity(build(forward, layers=layers, heads=heads), normal(2, 5, 3), normal(6, 9, 3))


def test_one_module_called_twice() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        return self.block(self.block(x)) - self.block(1 - x)

    module = build(forward, block=Block(3, 4))
    assert_parity(module, normal(2, 5, 3), normal(6, 9, 3))
    kernels = [w for layer in nc.from_torch(module.float(), normal(2, 5, 3)).layers for k, w in layer.weights.items() if k == "kernel"]  # fmt: skip
    assert len({w.tobytes() for w in kernels}) == 1


def test_siamese_networks() -> None:
    def forward(self: Any, a: torch.Tensor, b: torch.Tensor) -> Any:
        left, right = self.rnn(a)[1][0][-1], self.rnn(b)[1][0][-1]
        return torch.exp(-torch.sum(torch.abs(left - right), dim=1, keepdim=True))

    module = build(forward, **lstm())
    example = (normal(2, 5, 3), normal(2, 6, 3, seed=1))
    others = [(normal(n, s, 3), normal(n, t, 3, seed=1)) for n, s, t in [(1, 4, 9), (5, 8, 8)]]
    assert_parity(module, example, *others)


def test_inputs_that_never_meet() -> None:
    module = build(lambda self, a, b: (self.rnn(a)[0][:, -1], self.rnn(b)[0]), **lstm())
    example = (normal(2, 5, 3), normal(2, 6, 3, seed=1))
    assert_parity(module, example, (normal(4, 3, 3), normal(4, 9, 3, seed=1)))


def test_weights_that_are_shared() -> None:
    def forward(self: Any, ids: torch.Tensor) -> Any:
        return self.decoder(self.rnn(self.encoder(ids))[0])

    module = build(
        forward, encoder=nn.Embedding(11, 6), rnn=nn.LSTM(6, 6, batch_first=True), decoder=nn.Linear(6, 11)
    )  # fmt: skip
    module.decoder.weight = module.encoder.weight
    assert_parity(module, whole(2, 5, below=11), whole(6, 9, below=11))


def test_modules_in_train_mode() -> None:
    module = nn.Sequential(Block(3, 4), nn.LSTM(3, 5, 2, batch_first=True, dropout=0.5), Last())
    randomise(module, 1)
    x = normal(6, 9, 3)
    expected = run(module, x)
    module.train()
    spec = nc.from_torch(module, normal(2, 5, 3))
    assert all(m.training for m in module.modules())
    for backend in BACKENDS:
        assert_close(predict(Model(spec, backend), x), expected, expected)


def test_examples_by_name() -> None:
    def forward(
        self: Any, x: torch.Tensor, *, h: torch.Tensor, c: torch.Tensor, scale: float = 2.0
    ) -> Any:
        return scale * self.rnn(x, (h, c))[0]

    def example(batch: int, steps: int) -> Any:
        states = {"h": normal(1, batch, 6), "c": normal(1, batch, 6, seed=1)}
        return {"x": normal(batch, steps, 3), **states}

    module = build(forward, **lstm())
    assert_parity(module, example(2, 5), example(1, 8), example(6, 9))
    model = Model(nc.from_torch(module.float(), example(2, 5)), "numpy")
    assert [t.name for t in model.inputs] == ["x", "h", "c"]
    by_name = {k: v.numpy() for k, v in example(4, 3).items()}
    np.testing.assert_array_equal(model.predict(by_name), model.predict(list(by_name.values())))


def test_examples_by_name_in_another_order() -> None:
    module = build(lambda self, a, b: self.rnn(a)[0] - 3 * self.rnn(b)[0], **lstm())
    a, b = normal(2, 5, 3), normal(2, 5, 3, seed=1)
    randomise(module, 0)
    (expected,) = run(module, (a, b))
    model = Model(nc.from_torch(module, {"b": b, "a": a}), "numpy")
    y = model.predict({"a": a.numpy(), "b": b.numpy()})
    np.testing.assert_allclose(y, expected, atol=1e-6, rtol=0)


def test_nested_arguments() -> None:
    def forward(self: Any, x: Any, state: Any, more: Any) -> Any:
        h, c = state
        y, after = self.rnn(x, (h, c))
        return y * more["gain"][0].unsqueeze(1), after

    def example(batch: int, steps: int) -> Any:
        state = (normal(1, batch, 6), normal(1, batch, 6, seed=1))
        return normal(batch, steps, 3), state, {"gain": [normal(batch, 6, seed=2)]}

    assert_parity(build(forward, **lstm()), example(2, 5), example(1, 8), example(6, 9))


def test_a_module_of_whole_numbers_and_others() -> None:
    def forward(self: Any, ids: torch.Tensor, x: torch.Tensor) -> Any:
        return self.rnn(torch.cat([self.words(ids), x], dim=-1))[1][-1]

    module = build(forward, words=nn.Embedding(7, 2), rnn=nn.GRU(5, 4, batch_first=True))

    def example(batch: int, steps: int) -> Any:
        return whole(batch, steps, below=7), normal(batch, steps, 3)

    assert_parity(module, example(2, 5), example(1, 8), example(6, 9))


def test_float64_without_weights() -> None:
    spec = nc.from_torch(build(lambda self, x: x / 3), normal(2, 5, 3).double())
    assert spec.dtype == "float64"


# ---------------------------------------------------------------- layers around

CHANNELS = (normal(2, 4, 11), normal(5, 4, 14), normal(1, 4, 20))  # (batch, channels, steps)
STEPS = (normal(2, 5, 4), normal(6, 9, 4), normal(1, 7, 4))  # (batch, steps, features)
ROWS = (normal(2, 4), normal(7, 4), normal(1, 4))  # (batch, features)


def prelu_per_feature() -> nn.Module:
    return nn.PReLU(4)


def weight_normed_lstm() -> nn.Module:
    rnn = nn.LSTM(4, 5, batch_first=True)
    parametrizations.weight_norm(rnn, "weight_hh_l0")
    return parametrizations.weight_norm(rnn, "weight_ih_l0")


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "BatchNorm1d of rows": (lambda: nn.BatchNorm1d(4), ROWS),
    "BatchNorm1d of channels": (lambda: nn.BatchNorm1d(4, eps=0.1, momentum=None), CHANNELS),
    "BatchNorm1d without affine": (lambda: nn.BatchNorm1d(4, affine=False), CHANNELS),
    "LayerNorm": (lambda: nn.LayerNorm(4), STEPS),
    "LayerNorm of rows": (lambda: nn.LayerNorm(4, eps=0.1), ROWS),
    "LayerNorm without affine": (lambda: nn.LayerNorm(4, elementwise_affine=False), STEPS),
    "LayerNorm without bias": (lambda: nn.LayerNorm(4, bias=False), STEPS),
    "LayerNorm over two axes": (lambda: nn.LayerNorm((5, 4)), (normal(2, 5, 4), normal(7, 5, 4))),
    "Conv1d": (lambda: nn.Conv1d(4, 5, 3), CHANNELS),
    "Conv1d of stride 2": (lambda: nn.Conv1d(4, 5, 3, stride=2, padding=1), CHANNELS),
    "Conv1d without bias": (lambda: nn.Conv1d(4, 5, 2, bias=False, padding=3), CHANNELS),
    "Conv1d dilated": (lambda: nn.Conv1d(4, 5, 3, dilation=3, padding=2), CHANNELS),
    "Conv1d in groups": (lambda: nn.Conv1d(4, 6, 3, groups=2), CHANNELS),
    "Conv1d depthwise": (lambda: nn.Conv1d(4, 8, 3, groups=4, stride=3), CHANNELS),
    "Conv1d same": (lambda: nn.Conv1d(4, 5, 3, padding="same"), CHANNELS),
    "Conv1d same, even": (lambda: nn.Conv1d(4, 5, 4, padding="same"), CHANNELS),
    "Conv1d same, dilated": (lambda: nn.Conv1d(4, 5, 4, padding="same", dilation=3), CHANNELS),
    "Conv1d valid": (lambda: nn.Conv1d(4, 5, 4, padding="valid"), CHANNELS),
    "Conv1d pointwise": (lambda: nn.Conv1d(4, 2, 1), CHANNELS),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), CHANNELS),
    "MaxPool1d with overlap": (lambda: nn.MaxPool1d(4, stride=2, padding=2), CHANNELS),
    "MaxPool1d dilated": (lambda: nn.MaxPool1d(3, stride=1, dilation=2), CHANNELS),
    "AvgPool1d": (lambda: nn.AvgPool1d(3), CHANNELS),
    "AvgPool1d padded": (lambda: nn.AvgPool1d(3, stride=2, padding=1), CHANNELS),
    "AvgPool1d, padding not counted": (lambda: nn.AvgPool1d(3, 2, 1, count_include_pad=False), CHANNELS),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(1), CHANNELS),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(1), CHANNELS),
    "Linear": (lambda: nn.Linear(4, 3), STEPS),
    "Linear without bias": (lambda: nn.Linear(4, 3, bias=False), ROWS),
    "Linear over four axes": (lambda: nn.Linear(4, 3), (normal(2, 3, 5, 4), normal(5, 3, 7, 4))),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 3)), (normal(2, 5, 4), normal(7, 5, 4))),
    "Unflatten": (lambda: nn.Unflatten(2, (2, 2)), STEPS),
    "PReLU": (nn.PReLU, STEPS),
    "PReLU of rows": (prelu_per_feature, ROWS),
    "PReLU of channels": (prelu_per_feature, CHANNELS),
    "Dropout1d": (lambda: nn.Sequential(nn.Dropout1d(), nn.AlphaDropout(), nn.FeatureAlphaDropout(), nn.Conv1d(4, 2, 1)), CHANNELS),
    "weight_norm of a Linear": (lambda: parametrizations.weight_norm(nn.Linear(4, 3)), STEPS),
    "weight_norm of a Linear, one axis": (lambda: parametrizations.weight_norm(nn.Linear(4, 3), dim=1), STEPS),
    "weight_norm of an LSTM": (weight_normed_lstm, STEPS),
    "weight_norm of a Conv1d": (lambda: parametrizations.weight_norm(nn.Conv1d(4, 3, 3)), CHANNELS),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(4, 3)), STEPS),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.one_in(2)
def test_layers(name: str) -> None:
    make, examples = LAYERS[name]
    # What has no weights takes its type from a layer before it.
    before = nn.PReLU()
    assert_parity(nn.Sequential(before, make()), *examples)


@pytest.mark.parametrize("kind", ["LSTM", "Linear"])
def test_the_older_weight_norm(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if kind == "LSTM":
            module: nn.Module = nn.LSTM(4, 5, batch_first=True)
            nn.utils.weight_norm(module, "weight_hh_l0")
            nn.utils.weight_norm(module, "weight_ih_l0")
        else:
            module = nn.utils.weight_norm(nn.Linear(4, 3))
    assert_parity(module, *STEPS)


@pytest.mark.parametrize("padding", [None, 0, 3, -1])
def test_embeddings(padding: int | None) -> None:
    """The row of padding is a row like others: its values are zeros because nobody trains it."""
    module = build(
        lambda self, ids: self.rnn(self.words(ids))[0],
        words=nn.Embedding(9, 4, padding_idx=padding), rnn=nn.LSTM(4, 5, batch_first=True),
    )  # fmt: skip
    assert_parity(module, whole(2, 5, below=9), whole(6, 9, below=9), whole(1, 30, below=9))
    module = module.float()
    module.words.reset_parameters()
    assert_parity(module, whole(2, 5, below=9), whole(6, 9, below=9), seed=None)


def test_a_network_of_many_layers() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        x = self.pool(F.relu(self.norm(self.conv(x.transpose(1, 2))))).permute(0, 2, 1)
        y, (h, _) = self.rnn(x)
        attention = torch.softmax(self.score(torch.tanh(y)).squeeze(-1), dim=1)
        context = torch.bmm(attention.unsqueeze(1), y).squeeze(1)
        return self.out(self.last(torch.cat([context, h[-2], h[-1]], dim=1)))

    module = build(
        forward, conv=nn.Conv1d(4, 6, 3, padding=1), norm=nn.BatchNorm1d(6), pool=nn.MaxPool1d(2),
        rnn=nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, dropout=0.2), score=nn.Linear(10, 1),
        last=nn.LayerNorm(20), out=nn.Sequential(nn.Linear(20, 8), nn.GELU(), nn.Linear(8, 3)),
    )  # fmt: skip
    assert_parity(module, normal(2, 8, 4), normal(6, 13, 4), normal(1, 30, 4))


# ---------------------------------------------------------------- activations

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    **{f"F.{name}": getattr(F, name) for name in (
        "relu", "relu6", "elu", "selu", "celu", "leaky_relu", "gelu", "silu", "mish", "hardsigmoid",
        "hardswish", "hardtanh", "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink",
        "logsigmoid", "glu",
    )},
    **{f"torch.{name}": getattr(torch, name) for name in ("relu", "tanh", "sigmoid", "selu", "celu")},
    **{f"nn.{name}": getattr(nn, name)() for name in (
        "ReLU", "ReLU6", "ELU", "SELU", "CELU", "LeakyReLU", "GELU", "SiLU", "Mish", "Hardsigmoid",
        "Hardswish", "Hardtanh", "Softplus", "Softsign", "Tanhshrink", "Softshrink", "Hardshrink",
        "LogSigmoid", "Tanh", "Sigmoid", "GLU",
    )},
    **{f"nn.{name} in place": getattr(nn, name)(inplace=True) for name in (
        "ReLU", "ELU", "SELU", "SiLU", "Hardtanh",
    )},
    "nn.ELU(0.3)": nn.ELU(0.3),
    "nn.CELU(0.3)": nn.CELU(0.3),
    "nn.LeakyReLU(0.2)": nn.LeakyReLU(0.2),
    "F.leaky_relu(-0.2)": lambda x: F.leaky_relu(x, -0.2),
    "nn.GELU(tanh)": nn.GELU("tanh"),
    "nn.Hardtanh(-2, 0.5)": nn.Hardtanh(-2.0, 0.5),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0.0, 6.0),
    "nn.Softplus(2)": nn.Softplus(2),
    "nn.Softplus(0.3)": nn.Softplus(0.3),
    "nn.Softplus(1, 30)": nn.Softplus(1, 30),
    "nn.Softshrink(1.5)": nn.Softshrink(1.5),
    "nn.Hardshrink(1.5)": nn.Hardshrink(1.5),
    "F.prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "softmax(-1)": lambda x: F.softmax(x, -1),
    "softmax(1)": lambda x: torch.softmax(x, 1),
    "log_softmax(-1)": lambda x: F.log_softmax(x, -1),
    "log_softmax(1)": lambda x: x.log_softmax(1),
    "nn.Softmax(2)": nn.Softmax(2),
    "nn.LogSoftmax(1)": nn.LogSoftmax(1),
    "glu(1)": lambda x: F.glu(x[:, :4], 1),
    "clamp": lambda x: x.clamp(-0.5, 2),
    "clamp(min)": lambda x: torch.clamp(x, min=0.3),
    "clamp(max)": lambda x: x.clamp(max=0.3),
    "x.sigmoid()": lambda x: x.sigmoid(),
    "F.tanh": torch.tanh,
}  # fmt: skip


def activated(activation: Callable[[Any], Any]) -> nn.Module:
    """The activation of the input itself; a weight of zeros gives the module its type."""
    parts = {"activation": activation} if isinstance(activation, nn.Module) else {}
    function = activation if not parts else None

    def forward(self: Any, x: torch.Tensor) -> Any:
        return (function or self.activation)(x + self.zero)

    return build(forward, zero=nn.Parameter(torch.zeros(6)), **parts)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.one_in(3)
def test_activations(name: str) -> None:
    """Over all of their range, and where their formulas change."""
    module = activated(ACTIVATIONS[name])
    kinks = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 6, 20, 1e-6])
    kinks = torch.cat([kinks, -kinks]).reshape(1, 3, 6)
    wide = torch.linspace(-40, 40, 3 * 40 * 6).reshape(3, 40, 6)
    examples = [normal(2, 5, 6, scale=3), torch.cat([kinks, kinks], 1), wide]
    types = ("float64",) if name.startswith(("nn.", "torch.")) else None
    assert_parity(module, *examples, seed=None, types=types)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if not n.startswith("nn.") or "(" in n])
def test_activations_of_nan_and_infinities(name: str) -> None:
    """In float64: in float32 PyTorch's own GELU of infinity is nan or not, as the array is long."""
    module = activated(ACTIVATIONS[name]).double()
    odd = torch.full((3, 4, 6), 0.5, dtype=torch.float64)
    odd[0, 1, 1], odd[1, 2, 2], odd[2, 3, 3] = torch.nan, torch.inf, -torch.inf
    spec = nc.from_torch(module, odd)
    (expected,) = run(module, odd)
    for backend in BACKENDS:
        (y,) = predict(Model(spec, backend), odd)
        np.testing.assert_allclose(y, expected, rtol=FLOAT64_TOLERANCE, atol=0, equal_nan=True)


# ---------------------------------------------------------------- lengths and states


@pytest.mark.parametrize("batch_first", [True, False])
def test_lengths_around_every_recurrent_layer(batch_first: bool) -> None:
    lengths = [3, 8, 1, 5]
    first = nn.LSTM(3, 4, 2, batch_first=batch_first, bidirectional=True)
    second = nn.GRU(8, 5, batch_first=batch_first)

    def forward(self: Any, x: torch.Tensor) -> Any:
        y, (h, c) = self.first(x)
        z, last = self.second(torch.tanh(self.between(y)))
        return y, h, c, z, last

    def reference(x: torch.Tensor) -> Any:
        y, (h, c) = packed(first, x, lengths)
        z, last = packed(second, torch.tanh(module.between(y)), lengths)
        return y, h, c, z, last

    module = build(forward, first=first, between=nn.Linear(8, 8), second=second)
    shape = (4, 8, 3) if batch_first else (8, 4, 3)
    example = normal(2, 5, 3)
    assert_parity(module, example, normal(*shape), reference=reference, lengths=lengths)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_last_step_of_a_padded_sequence_is_zero(kind: str, bidirectional: bool) -> None:
    """``output[:, -1]`` behind ``pad_packed_sequence`` is zero but for the longest sequences."""
    rnn = getattr(nn, kind)(3, 4, batch_first=True, bidirectional=bidirectional)
    module = build(lambda self, x: self.rnn(x)[0][:, -1], rnn=rnn)
    lengths = [6, 2, 5, 1]
    assert_parity(
        module, normal(2, 5, 3), normal(4, 6, 3), lengths=lengths,
        reference=lambda x: packed(rnn, x, lengths)[0][:, -1],
    )  # fmt: skip


def test_lengths_do_not_depend_on_what_is_in_the_padding(backend: str) -> None:
    rnn = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
    model = Model(nc.from_torch(rnn, normal(2, 5, 3)), backend)
    x = normal(3, 7, 3).numpy()
    wild = x.copy()
    lengths = [2, 7, 4]
    for row, length in zip(wild, lengths, strict=True):
        row[length:] = np.nan
    clean, dirty = (model.predict(v, lengths=lengths) for v in (x, wild))
    for name in clean:
        np.testing.assert_array_equal(clean[name], dirty[name])


def test_lengths_in_parts(backend: str) -> None:
    rnn = nn.LSTM(3, 4, 2, bidirectional=True)
    model = Model(nc.from_torch(rnn, normal(5, 2, 3)), backend)
    x, lengths = normal(7, 6, 3).numpy(), np.array([2, 7, 4, 1, 5, 3])
    together = model.predict(x, lengths=lengths)
    for options in ({"batch_size": 2}, {"batch_size": 4, "threads": 2}, {"threads": 3}):
        parts = model.predict(x, lengths=lengths, **options)
        for name in together:
            agree(parts[name], together[name], 8 + 4 + 1, backend)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_go_in_and_out(kind: str, ragged: bool, bidirectional: bool, backend: str) -> None:
    """The state that comes out is PyTorch's, and going on from it is what PyTorch does."""
    options = {"proj_size": 3} if kind == "LSTM" else {}
    rnn = getattr(nn, kind)(
        3, 4, 2, batch_first=True, bidirectional=bidirectional, **options
    ).double()
    module = build(lambda self, x: self.rnn(x)[0], rnn=rnn)
    model = Model(nc.from_torch(module, normal(2, 5, 3).double()), backend)
    lengths = [4, 6, 1] if ragged else [6, 6, 6]
    ways = ["forward/", "backward/"] if bidirectional else [""]
    state, states = None, None
    for part in range(3):
        x = normal(3, 6, 3, seed=part).double()
        y, states = packed(rnn, x, lengths, states)
        ours, state = model.predict(
            x.numpy(), state=state, return_state=True, lengths=lengths if ragged else None
        )
        np.testing.assert_allclose(ours, y.detach().numpy(), atol=FLOAT64_TOLERANCE, rtol=0)
        assert list(state) == ["rnn_l0", "rnn_l1"]
        for letter, stack in zip("hc", states if kind == "LSTM" else [states], strict=False):
            own = [state[f"rnn_l{layer}"][way + letter] for layer in range(2) for way in ways]
            expected = stack.detach().numpy()
            np.testing.assert_allclose(np.stack(own), expected, atol=FLOAT64_TOLERANCE, rtol=0)


def test_a_layer_that_is_given_its_state_carries_none(backend: str) -> None:
    def example(batch: int) -> Any:
        return normal(batch, 5, 3), normal(1, batch, 6), normal(1, batch, 6)

    module = build(lambda self, x, h, c: self.rnn(x, (h, c))[0], **lstm())
    model = Model(nc.from_torch(module, example(2)), backend)
    y, state = model.predict(flat(example(3)), return_state=True)
    assert state == {}
    np.testing.assert_array_equal(y, model.predict(flat(example(3))))


def test_a_module_called_twice_carries_two_states(backend: str) -> None:
    module = build(lambda self, a, b: self.rnn(a)[0] - 3 * self.rnn(b)[0], **lstm()).double()
    a, b = normal(2, 8, 3).double(), normal(2, 8, 3, seed=1).double()
    model = Model(nc.from_torch(module, (a, b)), backend)
    together = model.predict(flat((a, b)))
    _, state = model.predict(flat((a[:, :3], b[:, :3])), return_state=True)
    assert len(state) == 2
    rest = model.predict(flat((a[:, 3:], b[:, 3:])), state=state)
    np.testing.assert_allclose(rest, together[:, 3:], atol=FLOAT64_TOLERANCE, rtol=0)


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
