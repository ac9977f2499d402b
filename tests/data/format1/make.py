"""How the files in this folder were made: small models of every layer kind, in format version 1.

This is for the record. The files are kept as they are, because files of format 1 must load and
verify for ever: a later npylstm would write another format here. Do not run it again.

Recorded outputs are those of the NumPy engine in float64, rounded once to the type of the file.
``kinds.json`` lists the kinds and config keys of format 1, with their defaults. The files called
``shipped_...`` are copies of models of this project, as a converter wrote them.

    PYTHONPATH=.:converters python tests/data/format1/make.py
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from builders import make_layer  # noqa: E402

import npylstm  # noqa: E402
from npylstm import Case, Model, ModelSpec  # noqa: E402
from npylstm.activations import TABLE, Activation  # noqa: E402
from npylstm.layers import (  # noqa: E402
    GRU,
    KINDS,
    LSTM,
    ActivationLayer,
    Arithmetic,
    Attention,
    BatchNormalization,
    Bidirectional,
    Concatenate,
    Constant,
    Conv1D,
    Dense,
    Dot,
    Elementwise,
    Embedding,
    Expand,
    External,
    Flatten,
    Flip,
    Full,
    Identity,
    Layer,
    LayerNormalization,
    MaskedMean,
    MaskedMerge,
    MaskedSoftmax,
    Masking,
    MatMul,
    MultiHeadAttention,
    Pad,
    Permute,
    Pool1D,
    PReLU,
    Reduce,
    Repeat,
    RepeatVector,
    Rescaling,
    Reshape,
    Select,
    SimpleRNN,
    SizeOf,
    Slice,
    Stack,
    TimeDistributed,
    Transpose,
    UnitNormalization,
    View,
)
from npylstm.layers.base import Dim  # noqa: E402
from npylstm.npz import is_model  # noqa: E402
from npylstm.spec import Edge, LayerSpec, TensorSpec  # noqa: E402

of = Activation.of
SEQUENCE: tuple[Dim, ...] = ("batch", "steps", 3)
MAJOR: tuple[Dim, ...] = ("steps", "batch", 3)
MASK: tuple[Dim, ...] = ("batch", "steps")
PROVENANCE = {"framework": "npylstm", "decisions": ["größer", "recorded in float64"]}


def double(x: Any) -> Any:
    return 2 * x


def weigh(x: Any, y: Any, weights: Any) -> Any:
    kernel, bias = weights
    return np.tanh(x @ kernel + bias) * y.mean(axis=1, keepdims=True)


def count_steps(x: Any) -> Any:
    return np.float64(x.shape[1])


CUSTOM = {"double": double, "weigh": weigh, "count_steps": count_steps}


@dataclasses.dataclass
class Run:
    """What one recorded case is to be: sizes of the symbols, and how it begins and ends."""

    batch: int = 2
    steps: int = 4
    queries: int = 3
    state: bool = False
    lengths: Sequence[int] | None = None
    purpose: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        return {"batch": self.batch, "steps": self.steps, "queries": self.queries}


class Graph:
    """A model in the making."""

    def __init__(self, name: str, dtype: str = "float32", seed: int = 0) -> None:
        self.name, self.dtype = name, dtype
        self.rng = np.random.default_rng(zlib.crc32(name.encode()) + seed)
        self.inputs: list[TensorSpec] = []
        self.draws: dict[str, Any] = {}
        self.layers: dict[str, LayerSpec] = {}
        self.edges: list[Edge] = []

    def input(self, name: str, shape: Sequence[Dim], draw: Any = "normal") -> str:
        """Add an input: ``normal``, ``positive`` or ``mask``, or ids below a number."""
        self.inputs.append(TensorSpec(name, tuple(shape), isinstance(draw, int)))
        self.draws[name] = draw
        return name

    def all(self, name: str, layer: Layer, *inputs: str) -> tuple[str, ...]:
        """Call a layer, which may have been called before; give all outputs."""
        if name not in self.layers:
            made = make_layer(name, layer, self.rng, self.dtype)
            weights = {
                k: np.abs(w) if k.endswith("moving_variance") else w
                for k, w in made.weights.items()
            }
            self.layers[name] = LayerSpec(name, layer, weights)
        number = 1 + sum(edge.layer == name for edge in self.edges)
        self.edges.append(Edge.call(self.layers[name], *inputs, number=number))
        return self.edges[-1].outputs

    def one(self, name: str, layer: Layer, *inputs: str) -> str:
        """Call a layer; give its main output."""
        return self.all(name, layer, *inputs)[0]

    def spec(self, *outputs: str) -> ModelSpec:
        return ModelSpec(
            tuple(self.layers.values()), tuple(self.edges), tuple(self.inputs), outputs,
            name=self.name, dtype=self.dtype, provenance=PROVENANCE,
        )  # fmt: skip

    def draw(self, tensor: TensorSpec, sizes: Mapping[str, int]) -> Any:
        shape = [d if isinstance(d, int) else sizes[d] for d in tensor.shape]
        draw = self.draws.get(tensor.name, "normal")
        if isinstance(draw, int):
            ids = self.rng.integers(1, draw, shape)
            if ids.ndim > 1 and ids.shape[1] > 2:
                ids[-1, -1] = 0
            return ids.astype(self.dtype)
        if draw == "mask":
            mask = self.rng.uniform(size=shape) < 0.6
            mask[..., 0] = True
            return mask.astype(self.dtype)
        x = self.rng.normal(size=shape)
        if draw == "padded" and shape[1] > 2:
            x[-1, -2:] = -1.5
        return (np.abs(x) + 0.1 if draw == "positive" else x).astype(self.dtype)

    def save(self, outputs: Sequence[str], *runs: Run) -> ModelSpec:
        return self.record(self.spec(*outputs), *runs)

    def record(self, spec: ModelSpec, *runs: Run) -> ModelSpec:
        """Record cases and write the file."""
        model = Model(spec.astype("float64"), "numpy", custom=self.custom(spec))
        cases = []
        for run in runs or (Run(),):
            x = {t.name: self.draw(t, run.sizes) for t in spec.inputs}
            state = {
                call: {
                    k: self.rng.uniform(-0.9, 0.9, (run.batch, *shape)).astype(self.dtype)
                    for k, shape in entries.items()
                }
                for call, entries in spec.state_shapes().items()
                if run.state
            }
            lengths = None if run.lengths is None else np.array(run.lengths)
            y = model.predict(x, state=state or None, lengths=lengths)
            y = y if isinstance(y, dict) else {spec.outputs[0]: y}
            made = {k: np.asarray(a, self.dtype) for k, a in y.items()}
            cases.append(Case(x, made, state, lengths, run.purpose))
        npylstm.save(spec.with_cases(cases), HERE / f"{spec.name}.npz")
        return spec

    @staticmethod
    def custom(spec: ModelSpec) -> dict[str, Any]:
        named = {layer.layer.name for layer in spec.layers if isinstance(layer.layer, External)}
        return {name: CUSTOM[name] for name in named}


LENGTHS = Run(3, 4, lengths=(4, 1, 3), purpose="lengths")
STATE = Run(2, 3, state=True, purpose="state")
ONE = Run(1, 1)


def chain(
    name: str, layer: Layer, *runs: Run, shape: Any = SEQUENCE, dtype: str = "float32"
) -> None:
    g = Graph(name, dtype)
    g.save(g.all("layer", layer, g.input("x", shape)), *runs)


def lstms() -> None:
    chain("lstm", LSTM(3, 4), ONE, STATE, LENGTHS)
    chain("lstm_sequences_and_state",
          LSTM(3, 3, return_sequences=True, return_state=True, stateful=True), STATE)  # fmt: skip
    chain("lstm_backwards",
          LSTM(3, 4, of("elu", alpha=0.5), of("hard_sigmoid_fifth"), return_sequences=True,
               go_backwards=True), Run(), LENGTHS)  # fmt: skip
    chain("lstm_time_major",
          LSTM(3, 4, time_major=True, return_sequences=True, return_state=True, use_bias=False,
               zero_output_for_mask=True), LENGTHS, STATE, shape=MAJOR)  # fmt: skip
    chain("lstm_projection",
          LSTM(3, 4, projection=2, return_sequences=True, return_state=True), STATE)  # fmt: skip
    chain("lstm_activations",
          LSTM(3, 4, of("relu", negative_slope=0.25, max_value=1.5), of("softmax"), use_bias=False),
          Run(), STATE)  # fmt: skip

    for name, zero, back in (("lstm_masked", False, False), ("lstm_masked_zero", True, True)):
        g = Graph(name)
        layer = LSTM(3, 4, of("softsign"), of("hard_sigmoid_sixth"), masked=True,
                     zero_output_for_mask=zero, go_backwards=back, return_sequences=True)  # fmt: skip
        x, mask = g.input("x", SEQUENCE), g.input("mask", MASK, "mask")
        g.save(g.all("lstm", layer, x, mask), STATE if zero else Run(3, 4))

    g = Graph("lstm_initial_state", "float64")
    given = g.input("x", SEQUENCE), g.input("h", ("batch", 2)), g.input("c", ("batch", 2))
    g.save(g.all("lstm", LSTM(3, 2, return_state=True), *given), Run(), LENGTHS)

    g = Graph("lstm_called_twice")
    layer = LSTM(3, 3, return_sequences=True, use_bias=False)
    first = g.one("lstm", layer, g.input("x", SEQUENCE))
    second = g.one("lstm", layer, first)
    g.save([first, second], STATE)


def grus() -> None:
    chain("gru", GRU(3, 4, return_sequences=True), STATE, LENGTHS)
    chain("gru_reset_before",
          GRU(3, 4, of("softplus", beta=2.0, threshold=3.0), of("hard_sigmoid_fifth"),
              reset_after=False, return_state=True, go_backwards=True), Run(), STATE)  # fmt: skip
    g = Graph("gru_time_major_masked")
    layer = GRU(3, 3, time_major=True, masked=True, zero_output_for_mask=True,
                return_sequences=True, return_state=True)  # fmt: skip
    x, mask = g.input("x", MAJOR), g.input("mask", MASK, "mask")
    g.save(g.all("gru", layer, x, mask), Run(3, 4, state=True))
    g = Graph("gru_initial_state")
    layer = GRU(3, 2, use_bias=False, stateful=True, return_state=True, return_sequences=True)
    x, h = g.input("x", SEQUENCE), g.input("h", ("batch", 2))
    g.save(g.all("gru", layer, x, h), Run())


def simple_rnns() -> None:
    chain("simple_rnn", SimpleRNN(3, 4), ONE, STATE, LENGTHS)
    g = Graph("simple_rnn_options")
    x = g.input("x", SEQUENCE)
    a = g.all("a", SimpleRNN(3, 2, of("relu"), return_sequences=True, return_state=True), x)
    b = g.all("b", SimpleRNN(2, 3, of("silu"), use_bias=False, go_backwards=True, stateful=True,
                             return_sequences=True), a[0])  # fmt: skip
    c = g.all("c", SimpleRNN(3, 2, zero_output_for_mask=True, return_sequences=True), x)
    g.save([*a, *b, *c], STATE, LENGTHS)
    g = Graph("simple_rnn_masked")
    x, mask = g.input("x", MAJOR), g.input("mask", MASK, "mask")
    h = g.input("h", ("batch", 3))
    flags = {"masked": True, "time_major": True, "return_sequences": True}
    a = g.all("keeps", SimpleRNN(3, 3, **flags), x, mask)
    b = g.all("zeroes", SimpleRNN(3, 3, **flags, zero_output_for_mask=True), x, h, mask)
    g.save([*a, *b], Run(3, 4), STATE)


def pairs() -> None:
    chain("bidirectional_lstm",
          Bidirectional(LSTM(2, 2, return_sequences=True),
                        LSTM(2, 2, go_backwards=True, return_sequences=True)),
          LENGTHS, shape=("batch", "steps", 2))  # fmt: skip
    flags = {"return_sequences": True}
    chain("bidirectional_sum",
          Bidirectional(SimpleRNN(3, 4, **flags),
                        SimpleRNN(3, 4, of("softsign"), go_backwards=True, **flags), "sum"),
          STATE, LENGTHS)  # fmt: skip
    chain("bidirectional_mul",
          Bidirectional(GRU(3, 2, reset_after=False, use_bias=False, zero_output_for_mask=True),
                        SimpleRNN(3, 2, of("elu"), go_backwards=True, zero_output_for_mask=True),
                        "mul"), LENGTHS)  # fmt: skip
    flags = {"return_sequences": True, "time_major": True}
    chain("bidirectional_ave",
          Bidirectional(SimpleRNN(3, 2, **flags),
                        SimpleRNN(3, 2, use_bias=False, go_backwards=True, **flags), "ave"),
          LENGTHS, shape=MAJOR)  # fmt: skip
    flags = {"return_sequences": True, "return_state": True}
    chain("bidirectional_none",
          Bidirectional(GRU(3, 2, use_bias=False, **flags),
                        GRU(3, 2, use_bias=False, go_backwards=True, **flags), "none"), STATE)  # fmt: skip
    g = Graph("bidirectional_masked_initial_state")
    flags = {"return_sequences": True, "return_state": True, "masked": True}
    pair = Bidirectional(SimpleRNN(3, 2, **flags), SimpleRNN(3, 3, go_backwards=True, **flags))
    given = [g.input("x", SEQUENCE), g.input("h", ("batch", 2)), g.input("back", ("batch", 3))]
    g.save(g.all("pair", pair, *given, g.input("mask", MASK, "mask")), Run(3, 4))


def weighted() -> None:
    g = Graph("dense", "float64")
    x = g.input("x", ("batch", 3))
    a = g.one("hidden", Dense(3, 5, of("relu", threshold=0.1)), x)
    b = g.one("mixed", Dense(5, 4, of("softmax"), use_bias=False), a)
    steps = g.one("over_steps", Dense(3, 3, of("gelu")), g.input("y", SEQUENCE))
    again = g.one("over_steps", Dense(3, 3, of("gelu")), steps)
    g.save([a, b, g.one("out", Dense(4, 1), b), again], Run(3), ONE)
    g = Graph("embedding")
    plain = g.one("plain", Embedding(6, 3), g.input("ids", MASK, 6))
    vectors, mask = g.all("masked", Embedding(6, 2, mask_zero=True), "ids")
    g.save([plain, vectors, mask, g.one("word", Embedding(4, 2), g.input("word_id", ("batch",), 4))],
           Run(), ONE)  # fmt: skip
    g = Graph("masking")
    y, mask = g.all("masking", Masking(-1.5), g.input("x", SEQUENCE, "padded"))
    h = g.one("rnn", SimpleRNN(3, 3, masked=True), y, mask)
    zeros, counts = g.all("zeros", Masking(), y)
    g.save([y, mask, h, zeros, counts], Run())
    g = Graph("conv1d")
    x = g.input("x", ("batch", "steps", 4))
    layers = {
        "same": Conv1D(4, 3, 3, stride=2, same=True, activation=of("relu")),
        "causal": Conv1D(4, 2, 3, padding=(4, 0), dilation=2, use_bias=False),
        "groups": Conv1D(4, 4, 2, groups=2, padding=(1, 2), activation=of("tanh")),
    }
    turned = g.one("turned", Permute((2, 1)), x)
    made = [g.one(name, layer, x) for name, layer in layers.items()]
    first = {"channels_first": True}
    made += [
        g.one("strided", Conv1D(4, 2, 3, stride=3, **first), turned),
        g.one("first", Conv1D(4, 2, 2, groups=2, same=True, use_bias=False, **first), turned),
    ]
    g.save(made, Run(2, 7))  # fmt: skip
    g = Graph("batch_normalization")
    x = g.input("x", SEQUENCE)
    layers = {
        "last": BatchNormalization(3, -1, 1e-3),
        "second": BatchNormalization(3, 2, 1e-5, scale=False),
        "bare": BatchNormalization(3, 2, 0.01, center=False),
    }
    a = [g.one(name, layer, x) for name, layer in layers.items()]
    turned = g.one("turned", Permute((2, 1)), x)
    g.save([*a, g.one("first", BatchNormalization(3, 1, 1e-3), turned)], Run())
    g = Graph("layer_normalization")
    x, y = g.input("x", SEQUENCE), g.input("y", ("batch", 2, 3))
    layers = {
        "last": LayerNormalization((3,), 1e-3),
        "unscaled": LayerNormalization((3,), 1e-3, scale=False, first_axis=2),
        "rms": LayerNormalization((3,), 1e-6, center=False, centered=False),
    }
    a = [g.one(name, layer, x) for name, layer in layers.items()]
    g.save([*a, g.one("both", LayerNormalization((2, 3), 1e-5, first_axis=1), y)], Run())
    g = Graph("prelu_and_unit_normalization")
    x = g.input("x", ("batch", 4, 3))
    g.save([g.one("all", PReLU((4, 3)), x), g.one("shared", PReLU((1, 3)), x),
            g.one("features", PReLU((3,), 2), x),
            g.one("last", UnitNormalization(), x), g.one("first", UnitNormalization((1,)), x),
            g.one("both", UnitNormalization((1, 2), 1e-6), x)], Run(3))  # fmt: skip


PARAMETERS: dict[str, dict[str, float]] = {
    "relu": {"negative_slope": 0.1, "max_value": 1.0, "threshold": 0.2},
    "elu": {"alpha": 0.7},
    "softplus": {"beta": 1.5, "threshold": 2.0},
    "celu": {"alpha": 0.6},
    "soft_shrink": {"threshold": 0.25},
    "hard_shrink": {"threshold": 0.75},
    "squareplus": {"b": 2.0},
    "thresholded_relu": {"theta": 0.3},
    "softmax": {"axis": 1},
    "log_softmax": {"axis": 1},
}


def pointwise() -> None:
    variants = [of(name) for name in TABLE] + [of(name, **p) for name, p in PARAMETERS.items()]
    for part in range(2):
        g = Graph(f"activation_{part + 1}")
        x = g.input("x", SEQUENCE)
        made = [g.one(f"a{k}", ActivationLayer(a), x) for k, a in enumerate(variants[part::2])]
        g.save([g.one("all", Stack(3), *made)])
    functions = {
        "positive": ["log", "log1p", "rsqrt", "sqrt", "reciprocal"],
        "normal": ["abs", "cos", "expm1", "negative", "sign", "sin", "square"],
    }
    g = Graph("elementwise_identity_rescaling")
    stacked = [
        g.one(f"all_{draw}", Stack(0), *[g.one(f, Elementwise(f), x) for f in names])
        for draw, names in functions.items()
        for x in [g.input(draw, SEQUENCE, draw)]
    ]
    same = g.one("same", Identity(), "normal")
    scaled = g.one("scaled", Rescaling(1 / 127.5, -1.0), g.one("default", Rescaling(), same))
    g.save([*stacked, same, scaled], Run())
    g = Graph("arithmetic")
    x, y = g.input("x", SEQUENCE, "positive"), g.input("y", SEQUENCE, "positive")
    names = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "average"]
    g.save([g.one("all", Stack(1), *[g.one(n, Arithmetic(n), x, y) for n in names])], Run(), ONE)
    g = Graph("arithmetic_numbers", "float64")
    x = g.input("x", SEQUENCE, "positive")
    made = [g.one(n, Arithmetic(n, 1.5), x) for n in names]
    made += [g.one(f"{n}_first", Arithmetic(n, 2.0, True), x)
             for n in ("subtract", "divide", "power", "average")]  # fmt: skip
    g.save([g.one("all", Stack(1), *made)], Run())
    g = Graph("arithmetic_broadcast")
    x, v = g.input("x", SEQUENCE), g.input("v", ("batch", 1, 3))
    w, z = g.input("w", ("batch", 3)), g.input("z", SEQUENCE)
    g.save([g.one("a", Arithmetic("subtract"), x, v),
            g.one("b", Arithmetic("add", after_batch=True), x, w),
            g.one("c", Arithmetic("average"), x, v, z),
            g.one("d", Arithmetic("maximum", 0.25, after_batch=True), w, x, z),
            g.one("e", Arithmetic("multiply"), x, z, x)], Run())  # fmt: skip
    g = Graph("reduce")
    x = g.input("x", SEQUENCE)
    made = [g.one(n, Reduce(n, (1,)), x) for n in ("mean", "sum", "max", "min", "norm")]
    kept = [g.one(f"{n}_kept", Reduce(n, (2,), True), x)
            for n in ("mean", "sum", "max", "min", "norm")]  # fmt: skip
    whole = g.one("whole", Reduce("mean", (1, 2)), x)
    both = g.one("both", Concatenate(2), *kept)
    g.save([g.one("all", Stack(1), *made), both, whole], Run())


def products() -> None:
    g = Graph("matmul_dot_constant")
    x, y = g.input("x", SEQUENCE), g.input("y", ("batch", 3, 2))
    moved = g.one("moved", Arithmetic("add"), x, g.one("shift", Constant((3,))))
    turned = g.one("turned", MatMul(), moved, g.one("matrix", Constant((3, 2))))
    scaled = g.one("scaled", Arithmetic("multiply"), turned, g.one("number", Constant((1,))))
    v, w = g.input("v", ("batch", 3)), g.input("w", ("batch", 3))
    made = [
        g.one("dot", Dot((2, 1)), x, y),
        g.one("cosine", Dot((-1, -1), True, 1e-6), v, w),
        g.one("vectors", Dot((1, 1)), v, w),
        g.one("mixed", Dot((2, -1), True), x, v),
    ]
    g.save([g.one("product", MatMul(), x, y), scaled, *made], Run())  # fmt: skip
    queries: tuple[Dim, ...] = ("batch", "queries", 3)
    g = Graph("attention_dot")
    q, v = g.input("query", queries), g.input("value", ("batch", "steps", 2))
    k = g.input("key", SEQUENCE)
    g.save([*g.all("plain", Attention(), q, k),
            *g.all("scaled", Attention(scaled=True, return_scores=True), q, v, k),
            *g.all("self", Attention(causal=True), k, k)], Run())  # fmt: skip
    g = Graph("attention_additive")
    q, v = g.input("query", queries), g.input("value", SEQUENCE)
    m, n = g.input("query_mask", ("batch", "queries"), "mask"), g.input("mask", MASK, "mask")
    g.save([*g.all("scaled", Attention("additive", 3, True, (0, 1), return_scores=True), q, v, m, n),
            *g.all("plain", Attention("additive", masked=(1,), single=False), q, v, n)],
           Run(3, 4))  # fmt: skip
    g = Graph("attention_concat", "float64")
    q, v = g.input("query", queries), g.input("value", SEQUENCE)
    m = g.input("query_mask", ("batch", "queries"), "mask")
    g.save([*g.all("scaled", Attention("concat", scaled=True), q, v),
            *g.all("masked", Attention("concat", masked=(0,), causal=True), q, v, m),
            *g.all("wide", Attention(scaled=True, single=False), q, v)])  # fmt: skip
    g = Graph("multi_head_attention")
    q, v = g.input("query", queries), g.input("value", ("batch", "steps", 2))
    k = g.input("key", ("batch", "steps", 4))
    g.save(g.all("heads", MultiHeadAttention(3, 2, 4, 2, 3, 2, 4, return_scores=True), q, v, k),
           Run())  # fmt: skip
    g = Graph("multi_head_attention_masks")
    q, v = g.input("query", queries), g.input("value", SEQUENCE)
    masks = (g.input("query_mask", ("batch", "queries"), "mask"), g.input("mask", MASK, "mask"),
             g.input("pairs", ("batch", "queries", "steps"), "mask"))  # fmt: skip
    sizes = (3, 3, 3, 2, 2, 2, 3)
    made = [
        *g.all("equal", MultiHeadAttention(*sizes, False, (0, 1, 3), blocked="equal"), q, v, *masks),
        *g.all("zero", MultiHeadAttention(*sizes, False, (1, 2), True, blocked="zero"), q, v, v,
               masks[1], masks[1]),
    ]  # fmt: skip
    g.save(made, Run(3, 4))
    g = Graph("multi_head_attention_window")
    x, pairs = g.input("x", SEQUENCE), g.input("pairs", ("batch", "steps", "steps"), "mask")
    made = [
        *g.all("near", MultiHeadAttention(*sizes, False, window=2, single=False), x, x),
        *g.all("added", MultiHeadAttention(*sizes, False, (3,), blocked="added"), x, x, pairs),
    ]
    g.save(made, Run(3, 4))
    g = Graph("masked_mean_and_softmax")
    x, m = g.input("x", SEQUENCE), g.input("mask", MASK, "mask")
    f = g.input("features", SEQUENCE, "mask")
    g.save([g.one("mean", MaskedMean(), x, m), g.one("kept", MaskedMean(True), x, m),
            g.one("last", MaskedSoftmax(), x, f), g.one("steps", MaskedSoftmax(1, True), x, f),
            g.one("added", MaskedSoftmax(-1, added=True), x, f)], Run(3, 4))  # fmt: skip
    g = Graph("masked_merge")
    x, y, z = (g.input(name, SEQUENCE) for name in "xyz")
    m, n = g.input("first", MASK, "mask"), g.input("second", MASK, "mask")
    g.save([g.one("a", MaskedMerge("multiply", (0, 1)), x, y, m, n),
            g.one("b", MaskedMerge("maximum", (1, 2)), x, y, z, m, n),
            g.one("c", MaskedMerge("minimum", (0,)), x, y, n)], Run(3, 4))  # fmt: skip
    g = Graph("pool1d")
    x = g.input("x", SEQUENCE)
    layers = {
        "max": Pool1D("max", 2, 2),
        "mean": Pool1D("mean", 3, 1, padding=(1, 1)),
        "counted": Pool1D("mean", 3, 2, padding=(1, 1), count_padding=True),
        "dilated": Pool1D("max", 2, 1, dilation=2, padding=(0, 1)),
        "same": Pool1D("mean", 3, 2, same=True),
    }
    turned = g.one("turned", Permute((2, 1)), x)
    made = [g.one(name, layer, x) for name, layer in layers.items()]
    g.save([*made, g.one("first", Pool1D("max", 3, 2, same=True, channels_first=True), turned)],
           Run(2, 7))  # fmt: skip
    g = Graph("time_distributed")
    x, i = g.input("x", ("batch", "steps", 4, 3)), g.input("i", SEQUENCE)
    made = [g.one("dense", TimeDistributed(Dense(3, 2)), i),
            g.one("rnn", TimeDistributed(SimpleRNN(3, 2)), x),
            g.one("conv", TimeDistributed(Conv1D(3, 2, 2)), x),
            g.one("flat", TimeDistributed(Flatten()), x)]  # fmt: skip
    g.save(made, Run(2, 3))
    g = Graph("external")
    x = g.input("x", SEQUENCE)
    sizes = ((0, 0), (0, 1), 3)
    y = g.one("twice", External("double", sizes), x)
    z = g.one("weigh", External("weigh", ((0, 0), (1, 1), 2), ((3, 2), (2,))), x,
              g.one("half", Dense(3, 2), y))  # fmt: skip
    steps = g.one("steps", External("count_steps"), x)  # of no axes
    g.save([y, z, g.one("mean", Arithmetic("divide"), y, steps)], Run(), ONE)


def moving() -> None:
    g = Graph("shaping")
    x, v = g.input("x", ("batch", 4, 3)), g.input("v", ("batch", 2))
    g.save([g.one("flat", Flatten(), x), g.one("seen", Reshape((2, -1, 3)), x),
            g.one("turned", Permute((2, 1)), x), g.one("repeated", RepeatVector(3), v),
            g.one("exact", Reshape((3, 4)), x)], Run())  # fmt: skip
    g = Graph("select_and_slice")
    x, y, z = g.input("x", SEQUENCE), g.input("y", ("batch", 5, 3)), g.input("z", MAJOR)
    g.save([g.one("last", Select(1, -1), x), g.one("feature", Select(2, 1), x),
            g.one("major", Select(0, 0), z), g.one("inner", Slice(1, 1, -1), x),
            g.one("second", Slice(1, 0, 5, 2, 3), y), g.one("tail", Slice(2, -2), x),
            g.one("two", Slice(1, -2, size=2), x)], Run())  # fmt: skip
    g = Graph("transpose_flip_repeat_pad")
    x = g.input("x", SEQUENCE)
    size = g.one("size", SizeOf(1), x)
    total = g.one("total", Reduce("sum", (1,)), x)
    g.save([g.one("major", Transpose((1, 0, 2)), x), g.one("flip", Flip((1, 2)), x),
            g.one("mean", Arithmetic("divide"), total, size),
            g.one("steps", Repeat(1, 2), x), g.one("features", Repeat(2, 3), x),
            g.one("causal", Pad(1, 2, 0), x), g.one("around", Pad(2, 1, 1), x)], Run())  # fmt: skip
    g = Graph("view")
    x, y = g.input("x", SEQUENCE), g.input("y", ("batch", 4, 3))
    rows = g.one("rows", View((-1, 3)), x)
    made = g.one("made", Dense(3, 2), rows)
    g.save([g.one("back", View(((1, 0), (1, 1), 2)), made, x),
            g.one("flat", View(((0, 0), -1)), x), g.one("new", View((1, (0, 0), 2, -1)), y)],
           Run())  # fmt: skip
    g = Graph("expand_and_full")
    x, v = g.input("x", SEQUENCE), g.input("v", ("batch", 1, 3))
    g.save([g.one("wide", Expand(((0, 0), (1, 1), 3)), v, x),
            g.one("new", Expand((2, (0, 0), 1, 3)), v),
            g.one("halves", Full(((0, 0), 2), 0.5), x),
            g.one("h", SimpleRNN(3, 2), x, g.one("zeros", Full(((0, 0), 2)), x))], Run())  # fmt: skip
    g = Graph("concatenate_and_stack")
    x, y, w = g.input("x", SEQUENCE), g.input("y", SEQUENCE), g.input("w", ("batch", "steps", 1))
    g.save([g.one("features", Concatenate(2), x, y), g.one("back", Concatenate(-1), x, w, y),
            g.one("steps", Concatenate(1), x, y), g.one("front", Stack(0), x, y),
            g.one("behind", Stack(3), x, y)], Run())  # fmt: skip


def whole_models() -> None:
    g = Graph("model_classifier")
    vectors, mask = g.all("embedding", Embedding(8, 2, mask_zero=True), g.input("ids", MASK, 8))
    pair = Bidirectional(LSTM(2, 2, masked=True, use_bias=False),
                         LSTM(2, 2, masked=True, use_bias=False, go_backwards=True))  # fmt: skip
    h = g.one("bidirectional", pair, vectors, mask)
    h = g.one("dropout", Identity(), h)
    g.save([g.one("dense", Dense(4, 3, of("softmax")), h), h], Run(5, 5))

    g = Graph("model_seq2seq")
    source, target = g.input("source", SEQUENCE), g.input("target", ("batch", "queries", 2))
    _, *state = g.all("encoder", GRU(3, 3, return_state=True), source)
    y, *after = g.all(
        "decoder", GRU(2, 3, return_sequences=True, return_state=True), target, *state
    )
    spec = g.save([g.one("dense", Dense(3, 2), y)], Run(2, 4, 3), Run(1, 2, 1))
    for name, inputs, outputs in (
        ("model_seq2seq_encoder", ["source"], state),
        ("model_seq2seq_decoder", ["target", *state], ["dense", *after]),
    ):
        g.record(dataclasses.replace(spec.subgraph(inputs, outputs), name=name), Run(), ONE)

    g = Graph("model_attention_over_lstm")
    h = g.one("lstm", LSTM(3, 3, return_sequences=True, use_bias=False), g.input("x", SEQUENCE))
    score = g.one("score", Dense(3, 1, of("tanh")), h)
    weights = g.one("weights", ActivationLayer(of("softmax", axis=1)), score)
    context = g.one("context", Dot((1, 1)), weights, h)
    flat = g.one("flat", Flatten(), context)
    g.save([g.one("out", Dense(3, 1), flat), weights], Run(), STATE)

    g = Graph("model_conv_pool_lstm")
    y = g.one(
        "conv", Conv1D(2, 3, 3, same=True, activation=of("relu")), g.input("x", ("batch", 8, 2))
    )
    y = g.one("pool", Pool1D("max", 2, 2), y)
    y = g.one("norm", BatchNormalization(3, -1, 1e-3), y)
    y = g.one("lstm", LSTM(3, 2), y)
    g.save([g.one("dense", Dense(2, 1, of("sigmoid")), y), y], Run(5))

    g = Graph("model_traced")
    x = g.input("x", SEQUENCE)
    major = g.one("major", Transpose((1, 0, 2)), x)
    flags = {"time_major": True, "return_sequences": True, "return_state": True,
             "zero_output_for_mask": True}  # fmt: skip
    y, first = g.all("rnn_0", SimpleRNN(3, 3, **flags), major)
    y, second = g.all("rnn_1", SimpleRNN(3, 3, **flags), y)
    states = g.one("states", Stack(0), first, second)
    last = g.one("last", Select(0, 1), states)
    rows = g.one("rows", View((-1, 3)), g.one("batch_major", Transpose((1, 0, 2)), y))
    logits = g.one("linear", Dense(3, 2), rows)
    back = g.one("back", View(((1, 0), (1, 1), 2)), logits, x)
    g.save([back, states, g.one("head", Dense(3, 1), last)], Run(), STATE)

    g = Graph("model_two_in_two_out", "float64")
    a = g.one("shared", SimpleRNN(3, 3), g.input("left", SEQUENCE))
    b = g.one("shared", SimpleRNN(3, 3), g.input("right", ("batch", "queries", 3)))
    d = g.one("distance", Elementwise("abs"), g.one("difference", Arithmetic("subtract"), a, b))
    g.save([g.one("same", Dense(3, 1, of("sigmoid")), d), a], Run(2, 4, 2))


def shipped() -> None:
    """Copy the small ones of the models that the project ships."""
    for path in sorted((ROOT / "models").glob("*/*.npz")):
        if path.stat().st_size < 40_000 and is_model(path):
            shutil.copyfile(path, HERE / f"shipped_{path.parent.name}_{path.stem}.npz")


def frozen_kinds() -> dict[str, Any]:
    """Say which config keys every kind has, and what they are by default."""
    kinds: dict[str, Any] = {}
    for kind, layer in KINDS.items():
        entry: dict[str, Any] = {"required": [], "defaults": {}}
        for field in dataclasses.fields(layer):
            value: Any = field.default
            if value is dataclasses.MISSING:
                entry["required"].append(field.name)
            else:
                value = value.to_json() if isinstance(value, Activation) else value
                entry["defaults"][field.name] = value
        kinds[kind] = entry
    return kinds


def main() -> None:
    if npylstm.spec.FORMAT_VERSION != 1:
        raise SystemExit("this npylstm writes another format; the files stay as they are")
    for make in (lstms, grus, simple_rnns, pairs, weighted, pointwise, products, moving,
                 whole_models, shipped):  # fmt: skip
        make()
    text = json.dumps(frozen_kinds(), indent=1)
    (HERE / "kinds.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
