"""Cases of recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
from operations.case import MAJOR, MASK, SEQUENCE, STATE, Case, case
from operations.elementwise_cases import WITH_PARAMETERS
from operations.oracles import Array, Weights

from npylstm.activations import Activation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN

FLAGS: tuple[dict[str, Any], ...] = (
    {},
    {"return_sequences": True},
    {"return_state": True},
    {"return_sequences": True, "return_state": True},
    {"go_backwards": True, "return_sequences": True},
    {"go_backwards": True},
    {"time_major": True},
    {"time_major": True, "return_sequences": True, "return_state": True},
    {"time_major": True, "go_backwards": True, "return_sequences": True},
    {"stateful": True},
    {"use_bias": False, "return_sequences": True},
    {"activation": Activation("relu"), "return_sequences": True},
    {"masked": True},
    {"masked": True, "return_sequences": True},
    {"masked": True, "return_sequences": True, "return_state": True},
    {"masked": True, "zero_output_for_mask": True, "return_sequences": True},
    {"masked": True, "zero_output_for_mask": True},
    {"masked": True, "zero_output_for_mask": True, "time_major": True, "return_sequences": True},
    {"masked": True, "go_backwards": True, "return_sequences": True},
    {"zero_output_for_mask": True},
)


def recurrent() -> Iterator[Case]:
    for kind, states in ((LSTM, 2), (GRU, 1), (SimpleRNN, 1)):
        own: list[dict[str, Any]] = []
        if kind is not SimpleRNN:
            own.append({"recurrent_activation": Activation("hard_sigmoid_fifth")})
            own.append({"recurrent_activation": Activation("softmax"), "return_sequences": True})
        for activation in (*WITH_PARAMETERS, Activation("erf"), Activation("asinh")):
            gates = {} if kind is SimpleRNN else {"recurrent_activation": WITH_PARAMETERS[3]}
            own.append({"activation": activation, **gates})
        if kind is LSTM:
            own.append({"projection": 2, "return_sequences": True, "return_state": True})
            own.append({"projection": 2, "go_backwards": True, "time_major": True})
            own.append({"projection": 5, "masked": True})
        if kind is GRU:
            own.append({"reset_after": False, "return_sequences": True})
            own.append({"reset_after": False, "use_bias": False, "return_state": True})
            own.append({"reset_after": False, "masked": True, "go_backwards": True})
        for flags in (*FLAGS, *own):
            layer = kind(3, 4, **flags)
            masks = (MASK,) if layer.masked else ()
            sequence = MAJOR if layer.time_major else SEQUENCE
            yield case(layer, sequence, *masks, oracle=cell_oracle(layer))
        begin = (STATE,) * states
        both: dict[str, Any] = {"return_sequences": True, "return_state": True}
        yield case(
            kind(3, 4, **both), SEQUENCE, *begin, note="begins-return_sequences-return_state"
        )
        major = kind(3, 4, time_major=True, return_sequences=True)
        yield case(major, MAJOR, *begin, note="begins-time_major-return_sequences")
        masked = kind(3, 4, masked=True, zero_output_for_mask=True, return_sequences=True)
        yield case(masked, SEQUENCE, *begin, MASK, note="begins-masked-zero_output_for_mask")
    projected = LSTM(3, 4, projection=2)
    yield case(projected, SEQUENCE, ("batch", 2), STATE, note="begins-projection")


def cell_oracle(layer: Any) -> Any:
    """An oracle for a layer without a mask, from zeros."""
    usual = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    given = {name: str(getattr(layer, name, value)) for name, value in usual.items()}
    if layer.masked or getattr(layer, "projection", 0):
        return None

    def compute(weights: Weights, x: Array) -> Array:
        x = x.swapaxes(0, 1) if layer.time_major else x
        x = x[:, ::-1] if layer.go_backwards else x
        if isinstance(layer, LSTM):
            y, _ = oracle.lstm(
                weights,
                x,
                activation=given["activation"],
                recurrent=given["recurrent_activation"],
            )
        elif isinstance(layer, GRU):
            y = oracle.gru(weights, x, None, layer.reset_after, *given.values())
        else:
            y = oracle.simple_rnn(weights, x, None, given["activation"])
        if not layer.return_sequences:
            return y[:, -1]
        return y.swapaxes(0, 1) if layer.time_major else y

    return compute


def pair_of(forward: LSTM, backward: LSTM, mode: str) -> Any:
    """An oracle for two layers that read a sequence from both ends: their outputs, merged."""
    merge = {
        "concat": lambda a, b: np.concatenate([a, b], -1), "sum": np.add, "mul": np.multiply,
        "ave": lambda a, b: (a + b) / 2, "none": lambda a, b: (a, b),
    }[mode]  # fmt: skip

    def compute(weights: Weights, x: Array) -> Any:
        a, b = (
            cell_oracle(layer)(
                {k.partition("/")[2]: w for k, w in weights.items() if k.startswith(way)}, x
            )
            for way, layer in (("forward", forward), ("backward", backward))
        )
        return merge(a, b[:, ::-1] if backward.return_sequences else b)

    return compute


def bidirectional() -> Iterator[Case]:
    flags: dict[str, Any]
    for mode in ("concat", "sum", "mul", "ave", "none"):
        for flags in (
            {},
            {"return_sequences": True},
            {"return_sequences": True, "return_state": True},
        ):
            a, b = LSTM(3, 4, **flags), LSTM(3, 4, go_backwards=True, **flags)
            note = "-".join([mode, *flags])
            yield case(Bidirectional(a, b, mode), SEQUENCE, note=note, oracle=pair_of(a, b, mode))
    for note, shapes, flags in (
        ("time_major", (MAJOR,), {"time_major": True, "return_sequences": True}),
        ("masked", (SEQUENCE, MASK), {"masked": True, "return_sequences": True}),
        ("masked-last", (SEQUENCE, MASK), {"masked": True, "zero_output_for_mask": True}),
        ("begins", (SEQUENCE, STATE, ("batch", 5)), {"return_state": True}),
    ):
        forward, backward = GRU(3, 4, **flags), GRU(3, 5, go_backwards=True, **flags)
        yield case(Bidirectional(forward, backward), *shapes, note=f"gru-{note}")
    mixed = Bidirectional(SimpleRNN(3, 4), LSTM(3, 2, go_backwards=True))
    yield case(mixed, SEQUENCE, note="two-kinds")
