"""Architectures: models of npylstm's public classes with random weights, and what they are called with.

Weights differ per gate and biases are never zero. Sizes are drawn: 3 to 48 units, 5 to 40 steps, 1
to 8 samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm import ModelSpec
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select
from npylstm.ops.masking import MaskedMean, Masking
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import Identity
from npylstm.spec import TensorSpec
from planted.building import Architecture, Build
from planted.program import Array, Data

TANH, RELU, SOFTMAX = Activation("tanh"), Activation("relu"), Activation("softmax")
SEQ: dict[str, Any] = {"return_sequences": True}


def sequence(features: int, name: str = "x") -> TensorSpec:
    return TensorSpec(name, ("batch", "steps", features))


Made = tuple[ModelSpec, Data]
BUILDERS: dict[str, Callable[[Build], Made]] = {}


def architecture(function: Callable[[Build], Made]) -> Callable[[Build], Made]:
    BUILDERS[function.__name__] = function
    return function


def draw(name: str, seed: int) -> Architecture:
    """Draw an architecture by name; the same for the same seed."""
    build = Build(np.random.default_rng([seed, zlib.crc32(name.encode())]))
    return Architecture(name, seed, *BUILDERS[name](build))


def _cell(kind: str, features: int, units: int, **options: Any) -> Operation:
    makers: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": SimpleRNN}
    made: Operation = makers[kind](features, units, **options)
    return made


def _both(kind: str, features: int, units: int, merge: str = "concat", **options: Any) -> Operation:
    ways = [_cell(kind, features, units, **options, go_backwards=back) for back in (False, True)]
    return Bidirectional(*ways, merge)


def _simple(
    b: Build, cells: Sequence[tuple[str, Operation]], features: int, outputs: int, **options: Any
) -> ModelSpec:
    """Recurrent layers one after the other, and a Dense head on what the last one returns."""
    x = "x"
    for name, layer in cells:
        x = b.add(name, layer, x)
    width = getattr(layer, "output_size", 0) or 2 * layer.forward_layer.output_size  # type: ignore[attr-defined]
    if getattr(layer, "merge_mode", "concat") != "concat":
        width //= 2
    return b.finish(
        sequence(features), outputs=[b.add("head", Dense(width, outputs, **options), x)]
    )


@architecture
def lstm_sequence(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(6, 20)
    spec = _simple(b, [("lstm", LSTM(f, n, **SEQ))], f, 3)
    return spec, Data({"x": b.noise(*b.sizes(), f)})


@architecture
def lstm_classifier(b: Build) -> Made:
    n, batch = b.size(6, 24), b.size(4, 8)
    steps = b.size(5, 25)
    spec = _simple(b, [("lstm", LSTM(n, n))], n, 5, activation=SOFTMAX)
    return spec, Data({"x": b.noise(batch, steps, n)})


@architecture
def lstm_bare(b: Build) -> Made:
    """A recurrent layer alone, as many steps as samples."""
    f, n, steps = b.size(2, 5), b.size(3, 12), b.size(5, 8)
    lstm = b.add("lstm", LSTM(f, n, **SEQ), "x")
    return b.finish(sequence(f), outputs=[lstm]), Data({"x": b.noise(steps, steps, f)})


@architecture
def lstm_stacked(b: Build) -> Made:
    n = b.size(5, 16)
    cells = [(f"lstm_{k}", LSTM(n, n, **SEQ)) for k in range(3)]
    return _simple(b, cells, n, 2), Data({"x": b.noise(*b.sizes(), n)})


@architecture
def lstm_wide(b: Build) -> Made:
    cells = [("lstm_0", LSTM(8, 48, **SEQ)), ("lstm_1", LSTM(48, 32))]
    return _simple(b, cells, 8, 4, activation=TANH), Data({"x": b.noise(4, 40, 8)})


@architecture
def lstm_hard(b: Build) -> Made:
    """What old Keras models look like: hard gates, another activation."""
    f, n = b.size(2, 6), b.size(5, 14)
    hard, soft = Activation("hard_sigmoid_fifth"), Activation("softsign")
    cells = [("lstm", LSTM(f, n, soft, hard, **SEQ)), ("lstm_out", LSTM(n, n, soft, hard))]
    spec = _simple(b, cells, f, 1, activation=Activation("sigmoid"))
    return spec, Data({"x": b.noise(*b.sizes(batch=8, samples=5), f)})


@architecture
def lstm_state(b: Build) -> Made:
    """A state is given to every layer."""
    f, n = b.size(2, 6), b.size(5, 14)
    spec = _simple(b, [("lstm_0", LSTM(f, n, **SEQ)), ("lstm_1", LSTM(n, n, **SEQ))], f, 2)
    batch, steps = b.sizes(20)
    state = {k: {"h": b.noise(batch, n), "c": b.noise(batch, n)} for k in ("lstm_0", "lstm_1")}
    return spec, Data({"x": b.noise(batch, steps, f)}, state)


@architecture
def lstm_projected(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(6, 14)
    cells = [("lstm", LSTM(f, n, projection=n // 2, **SEQ))]
    return _simple(b, cells, f, 3), Data({"x": b.noise(*b.sizes(20), f)})


@architecture
def lstm_backwards(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(5, 14)
    cells: list[tuple[str, Operation]] = [("lstm", LSTM(f, n, go_backwards=True, **SEQ))]
    if b.size(0, 1):
        cells.append(("last", LSTM(n, n, go_backwards=True)))
    return _simple(b, cells, f, 3), Data({"x": b.noise(*b.sizes(20, samples=4), f)})


@architecture
def gru_stacked(b: Build) -> Made:
    n = b.size(5, 16)
    cells = [("gru_0", GRU(n, n, **SEQ)), ("gru_1", GRU(n, n))]
    spec = _simple(b, cells, n, 4, activation=RELU)
    return spec, Data({"x": b.noise(*b.sizes(samples=4), n)})


@architecture
def gru_before(b: Build) -> Made:
    f, n = b.size(2, 7), b.size(5, 20)
    spec = _simple(b, [("gru", GRU(f, n, reset_after=False, **SEQ))], f, 3)
    return spec, Data({"x": b.noise(*b.sizes(), f)})


@architecture
def gru_state(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(5, 14)
    batch, steps = b.sizes(20)
    spec = _simple(b, [("gru", GRU(f, n, **SEQ))], f, 2)
    return spec, Data({"x": b.noise(batch, steps, f)}, {"gru": {"h": b.noise(batch, n)}})


@architecture
def rnn_stacked(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(5, 16)
    cells = [("rnn_0", SimpleRNN(f, n, **SEQ)), ("rnn_1", SimpleRNN(n, n, **SEQ))]
    return _simple(b, cells, f, 3), Data({"x": b.noise(*b.sizes(20), f)})


@architecture
def bilstm_stacked(b: Build) -> Made:
    """The shape of a two-layer bidirectional nn.LSTM."""
    f, n = b.size(2, 6), b.size(4, 12)
    cells = [("both_0", _both("lstm", f, n, **SEQ)), ("both_1", _both("lstm", 2 * n, n, **SEQ))]
    return _simple(b, cells, f, 3), Data({"x": b.noise(*b.sizes(20), f)})


@architecture
def bigru_last(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(5, 14)
    spec = _simple(b, [("both", _both("gru", f, n))], f, 4, activation=SOFTMAX)
    return spec, Data({"x": b.noise(*b.sizes(20, samples=5), f)})


@architecture
def birnn_merged(b: Build) -> Made:
    kind, merge = ("lstm", "gru", "rnn")[b.size(0, 2)], ("sum", "mul", "ave")[b.size(0, 2)]
    f, n = b.size(2, 6), b.size(5, 14)
    spec = _simple(b, [("both", _both(kind, f, n, merge, **SEQ))], f, 3, activation=TANH)
    return spec, Data({"x": b.noise(*b.sizes(20), f)})


def _padded(b: Build, batch: int, steps: int, features: int, value: float) -> Array:
    """Sequences padded behind, in front and with a hole; the first is full."""
    x = b.noise(batch, steps, features)
    for k in range(1, batch):
        n = b.size(1, steps - 2)
        x[k, (slice(-n, None), slice(None, n), slice(n, n + 2))[k % 3]] = value
    return x


@architecture
def masked_lstm(b: Build) -> Made:
    """The mask rule of Keras: the state is carried and the output repeated."""
    f, n, value = b.size(2, 5), b.size(5, 14), (0.0, -1.0)[b.size(0, 1)]
    masking = b.add("masking", Masking(value), "x")
    lstm = b.add("lstm_0", LSTM(f, n, masked=True, **SEQ), masking, "masking/mask")
    last = b.add("lstm_1", LSTM(n, n, masked=True, **SEQ), lstm, "masking/mask")
    spec = b.finish(sequence(f), outputs=[b.add("head", Dense(n, 3), last)])
    return spec, Data({"x": _padded(b, b.size(4, 8), b.size(6, 20), f, value)})


@architecture
def masked_bigru(b: Build) -> Made:
    f, n = b.size(2, 5), b.size(5, 12)
    masking = b.add("masking", Masking(), "x")
    both = b.add("both", _both("gru", f, n, masked=True), masking, "masking/mask")
    spec = b.finish(sequence(f), outputs=[b.add("head", Dense(2 * n, 3), both)])
    return spec, Data({"x": _padded(b, b.size(5, 8), b.size(6, 20), f, 0.0)})


@architecture
def packed_bilstm(b: Build) -> Made:
    """PyTorch's packed sequences: zeros behind the end, the backward direction begins there."""
    f, n, batch, steps = b.size(2, 5), b.size(4, 12), b.size(4, 8), b.size(6, 20)
    spec = _simple(b, [("both", _both("lstm", f, n, zero_output_for_mask=True, **SEQ))], f, 3)
    lengths = np.array([steps, *(b.size(1, steps - 1) for _ in range(batch - 1))])
    return spec, Data({"x": b.noise(batch, steps, f)}, lengths=lengths)


@architecture
def text_gru(b: Build) -> Made:
    """Ids, a mask of the zeros among them, a mean over the steps that count."""
    vocabulary, n, batch, steps = b.size(20, 50), b.size(5, 12), b.size(5, 8), b.size(6, 16)
    words = b.add("words", Embedding(vocabulary, 6, mask_zero=True), "ids")
    gru = b.add("gru", GRU(6, n, masked=True, **SEQ), words, "words/mask")
    mean = b.add("mean", MaskedMean(), gru, "words/mask")
    head = b.add("head", Dense(n, 4, SOFTMAX), mean)
    ids = b.rng.integers(1, vocabulary, (batch, steps)).astype(np.float32)
    for k in range(1, batch):
        ids[k, b.size(1, steps - 1) :] = 0
    spec = b.finish(TensorSpec("ids", ("batch", "steps"), True), outputs=[head])
    return spec, Data({"ids": ids})


@architecture
def conv_lstm(b: Build) -> Made:
    f, filters, n = b.size(2, 5), b.size(3, 8), b.size(5, 12)
    same = bool(b.size(0, 1))
    size, padding = b.size(3, 5), (0, 0)
    if not same:  # causal
        padding = (size - 1, 0)
    conv = b.add("conv", Conv1D(f, filters, size, padding=padding, same=same, activation=RELU), "x")
    lstm = b.add("lstm", LSTM(filters, n, **SEQ), conv)
    spec = b.finish(sequence(f), outputs=[b.add("head", Dense(n, 2), lstm)])
    return spec, Data({"x": b.noise(*b.sizes(20), f)})


@architecture
def conv_pool_gru(b: Build) -> Made:
    f, filters, n = 4, 4, b.size(5, 12)
    conv = b.add("conv_0", Conv1D(f, filters, 3, same=True, activation=Activation("elu")), "x")
    again = b.add("conv_1", Conv1D(filters, filters, 3, same=True), conv)
    pool = b.add("pool", Pool1D("mean", 2, 2, same=True), again)
    gru = b.add("gru", GRU(filters, n), pool)
    spec = b.finish(sequence(f), outputs=[b.add("head", Dense(n, 3), gru)])
    return spec, Data({"x": b.noise(*b.sizes(25, samples=5), f)})


@architecture
def lstm_layer_norm(b: Build) -> Made:
    f, n, eps = b.size(2, 6), b.size(5, 14), (1e-3, 1e-5)[b.size(0, 1)]
    lstm = b.add("lstm", LSTM(f, n, **SEQ), "x")
    norm = b.add("norm", LayerNormalization((n,), eps), lstm)
    spec = b.finish(sequence(f), outputs=[b.add("head", Dense(n, 3), norm)])
    return spec, Data({"x": b.noise(*b.sizes(20), f)})


@architecture
def batch_norm_gru(b: Build) -> Made:
    f, n, eps = b.size(3, 6), b.size(5, 14), (1e-3, 1e-5)[b.size(0, 1)]
    x = b.add("norm_in", BatchNormalization(f, -1, eps), "x")
    gru = b.add("gru", GRU(f, n, **SEQ), x)
    norm = b.add("norm_out", BatchNormalization(n, -1, eps), gru)
    spec = b.finish(sequence(f), outputs=[b.add("head", Dense(n, 3), norm)])
    return spec, Data({"x": b.noise(*b.sizes(20, samples=3), f)})


@architecture
def attention_lstm(b: Build) -> Made:
    """Dot-product attention of the sequence to itself, then the mean over time."""
    f, n = b.size(2, 6), b.size(5, 14)
    lstm = b.add("lstm", LSTM(f, n, **SEQ), "x")
    looked = b.add("attention", Attention(), lstm, lstm)
    mean = b.add("mean", Reduce("mean", (1,)), looked)
    hidden = b.add("hidden", Dense(n, n, Activation("gelu")), mean)
    head = b.add("head", Dense(n, 3), hidden)
    return b.finish(sequence(f), outputs=[head]), Data({"x": b.noise(*b.sizes(20, samples=5), f)})


@architecture
def heads_gru(b: Build) -> Made:
    """Multi-head attention with a residual connection and layer normalisation."""
    f, n = b.size(2, 6), 2 * b.size(3, 6)
    gru = b.add("gru", GRU(f, n, **SEQ), "x")
    sizes = (n, n, n, 2, n // 2, n // 2, n)
    looked = b.add("attention", MultiHeadAttention(*sizes), gru, gru)
    total = b.add("add", Arithmetic("add"), gru, looked)
    norm = b.add("norm", LayerNormalization((n,), 1e-6), total)
    head = b.add("head", Dense(n, 2), norm)
    return b.finish(sequence(f), outputs=[head]), Data({"x": b.noise(*b.sizes(16), f)})


@architecture
def last_of_sequence(b: Build) -> Made:
    """``out[:, -1]`` of a returned sequence, dropout, two Dense layers: the PyTorch way."""
    f, n = b.size(2, 6), b.size(5, 14)
    lstm = b.add("lstm", LSTM(f, n, **SEQ), "x")
    last = b.add("last", Select(1, -1), lstm)
    hidden = b.add("hidden", Dense(n, n, RELU), b.add("dropout", Identity(), last))
    head = b.add("head", Dense(n, 3), hidden)
    return b.finish(sequence(f), outputs=[head]), Data({"x": b.noise(*b.sizes(20, samples=5), f)})


@architecture
def two_heads(b: Build) -> Made:
    f, n = b.size(2, 6), b.size(5, 14)
    lstm = b.add("lstm", LSTM(f, n, **SEQ), "x")
    heads = [b.add(k, Dense(n, 2), lstm) for k in ("left", "right")]
    total = b.add("score", Dense(n, 1, Activation("sigmoid")), lstm)
    spec = b.finish(sequence(f), outputs=[*heads, total])
    return spec, Data({"x": b.noise(*b.sizes(20), f)})


@architecture
def encoder(b: Build) -> Made:
    """The encoder of a sequence-to-sequence model: its output and its state."""
    f, n = b.size(2, 6), b.size(5, 14)
    b.add("encoder", LSTM(f, n, return_state=True), "x")
    spec = b.finish(sequence(f), outputs=["encoder/h", "encoder/c"])
    return spec, Data({"x": b.noise(*b.sizes(20, samples=4), f)})


@architecture
def seq2seq(b: Build) -> Made:
    f, n = b.size(2, 5), b.size(5, 12)
    b.add("encoder", LSTM(f, n, return_state=True), "x")
    decoder = b.add("decoder", LSTM(f, n, **SEQ), "y", "encoder/h", "encoder/c")
    head = b.add("head", Dense(n, 3), decoder)
    spec = b.finish(sequence(f), TensorSpec("y", ("batch", "more", f)), outputs=[head])
    batch = b.size(3, 8)
    data = {"x": b.noise(batch, b.size(5, 15), f), "y": b.noise(batch, b.size(5, 15), f)}
    return spec, Data(data)
