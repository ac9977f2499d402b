"""Options of Keras' layers that are refused, with the layer and the reason; never wrong numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras_graphs import FRAMEWORKS, refused, run, try_converting
from keras_layer_parity import (
    FIXED,
    assert_parity,
    frameworks,
    make_inputs,
    randomise,
    side_by_side,
)


def refusals(k: Any) -> dict[str, tuple[Callable[[], Any], str]]:
    """Layers on (batch, 6, 6), so that whatever is mistaken for another axis fits."""
    L = k.layers
    cases = {
        "norm of steps": (lambda: L.LayerNormalization(axis=1, name="odd"), "axis"),
        "norm of steps, from behind": (lambda: L.LayerNormalization(axis=-2, name="odd"), "axis"),
        "two cells": (
            lambda: L.Bidirectional(L.RNN([L.LSTMCell(3), L.LSTMCell(2)]), name="odd"),
            "2 cells",
        ),
    }
    if k is keras:
        first = {"data_format": "channels_first"}
        cases |= {
            "channels first": (lambda: L.ZeroPadding1D(1, name="odd", **first), "channels_first"),
        }
    return cases


@pytest.mark.parametrize(
    ("framework", "name"), [(f, n) for f, k in FRAMEWORKS.items() for n in refusals(k)]
)
def test_refusals(framework: str, name: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    make, reason = refusals(k)[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rms_scaling")
        layers = [make(), k.layers.SimpleRNN(3)] if name != "two cells" else [make()]
        model = k.Sequential([k.Input((FIXED, FIXED)), *layers])
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        (only,) = refused(source)
        assert only.startswith("odd: ")
        assert reason in only


def doubtful(k: Any) -> dict[str, Callable[[], Any]]:
    """What may be refused, but must be right if it is not."""
    L = k.layers
    soft = {"activation": "softsign"}
    return {
        "axes in another order": lambda: L.LayerNormalization(axis=[2, 1], name="odd"),
        "bare norm": lambda: L.LayerNormalization(center=False, scale=False, name="odd"),
        "offset": lambda: L.Rescaling(2.0, offset=0.5, name="odd"),
        "scales": lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="odd"),
        "pair turned around": lambda: L.Bidirectional(L.GRU(3, go_backwards=True, **soft), name="odd"),
        "pair given in the other order": lambda: L.Bidirectional(
            L.SimpleRNN(3, go_backwards=True), backward_layer=L.SimpleRNN(3), name="odd"),
        "softmax of steps in time": lambda: L.TimeDistributed(L.Softmax(axis=1), name="odd"),
        "unit norm": lambda: L.UnitNormalization(name="odd"),
        "permuted": lambda: L.Permute((2, 1), name="odd"),
        "depthwise dilation": lambda: L.DepthwiseConv1D(2, dilation_rate=2, name="odd"),
        "transposed": lambda: L.Conv1DTranspose(3, 2, name="odd"),
        "local attention": lambda: L.Softmax(axis=[1, 2], name="odd"),
    }  # fmt: skip


# Keras 3 itself raises for these.
IMPOSSIBLE = {("keras3", "pair turned around")}


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, n) for f, k in FRAMEWORKS.items() for n in doubtful(k) if (f, n) not in IMPOSSIBLE],
)
def test_refused_or_right(framework: str, name: str) -> None:
    k = FRAMEWORKS[framework]
    model = side_by_side(k, [doubtful(k)[name]()], FIXED)
    run(model, make_inputs(model, 2, FIXED, 0))
    spec, reasons = try_converting(model)
    if spec is None:
        assert len(reasons) == 1
        assert reasons[0].startswith("odd: ")
    else:
        assert_parity(model, [spec])


@frameworks
def test_attention_by_concatenation_or_causal(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    for options, call in (
        ({"score_mode": "concat"}, {}),
        ({}, {"use_causal_mask": True}),
        ({}, {"return_attention_scores": True}),
    ):
        x = k.Input((None, 4), name="x")
        y = L.SimpleRNN(4, return_sequences=True)(x)
        made = L.Attention(name="look", **options)([y, x], **call)
        model = randomise(k.Model(x, made))
        spec, reasons = try_converting(model)
        assert all(reason.startswith("look: ") for reason in reasons), reasons
        if spec is not None:
            assert_parity(model, [spec])


@frameworks
def test_each_refusal_is_told(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    layers = [
        L.Bidirectional(
            L.RNN([L.SimpleRNNCell(3), L.GRUCell(3)], return_sequences=True), name="one"
        ),
        L.SimpleRNN(4, return_sequences=True, name="fine"),
        L.Bidirectional(L.RNN([L.LSTMCell(6), L.LSTMCell(6)]), name="two"),
    ]
    model = k.Sequential([k.Input((FIXED, FIXED)), *layers])
    assert [reason.split(":")[0] for reason in refused(model)] == ["one", "two"]
