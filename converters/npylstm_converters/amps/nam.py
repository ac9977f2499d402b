"""Captures of Neural Amp Modeler, ``.nam``: those whose network is an LSTM.

The initial states are weights: the exporter stores the state that the network reaches on silence,
and a stream starts there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm.ops.arithmetic import Constant
from npylstm.ops.dense import Dense
from npylstm.ops.shaping import Expand
from npylstm_converters.amps.parts import INPUT, read_metadata, read_rate, start
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.draft import Draft
from npylstm_converters.toolkit.json_files import read_choice, read_numbers, read_size
from npylstm_converters.toolkit.ledger import became
from npylstm_converters.toolkit.translation import Row, table, translate
from npylstm_converters.torch.recurrent import Weights, make_layer

__all__ = ["nam", "sizes_of"]

_VERSIONS = ("0.5", "0.6", "0.7")  # of the file format


def nam(
    draft: Draft,
    version: Any,
    architecture: Any,
    config: Any,
    weights: Any,
    sample_rate: Any = None,
    metadata: Any = None,
    notes: Any = None,
) -> None:
    """Translate a ``.nam`` file.

    Parameters
    ----------
    draft
        The model.
    version, architecture, config, weights, sample_rate, metadata
        The keys of the file.
    notes
        A text, which is kept.

    Raises
    ------
    Refusal
        If it is no LSTM, or has settings that are not known.
    FormatError
        If it is damaged.
    """
    if not isinstance(version, str) or version.rpartition(".")[0] not in _VERSIONS:
        known = ", ".join(f"{v}.x" for v in _VERSIONS)
        raise Refusal(f"version {version!r:.80} of the .nam format is not known, only {known}")
    network = _ARCHITECTURES[read_choice("architecture", architecture, _ARCHITECTURES)]
    if not isinstance(config, dict):
        raise FormatError(f"config: expected an object, got {type(config).__name__}")
    draft.about |= {"format_version": version, **read_rate(sample_rate)}
    draft.about |= read_metadata(metadata, notes=notes)
    translate(network, (draft, weights), (), config)


def sizes_of(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return inputs, units, layers and outputs of an LSTM."""
    sizes = [read_size(k, config.get(k)) for k in ("input_size", "hidden_size", "num_layers")]
    return sizes[0], sizes[1], sizes[2], read_size("out_channels", config.get("out_channels", 1))


def _lstm(
    source: tuple[Draft, Any],
    input_size: Any,
    hidden_size: Any,
    num_layers: Any,
    in_channels: Any = 1,
    out_channels: Any = 1,
) -> None:
    draft, weights = source
    config = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
    features, units, layers, outputs = sizes_of({**config, "out_channels": out_channels})
    if in_channels != input_size:
        raise Refusal(
            f"input_size {features} with in_channels {in_channels!r:.40} is not supported: "
            "the file does not say what the other inputs are"
        )
    per_layer = 4 * units * (units + 1) + 2 * units
    first = 4 * units * (features + units + 1) + 2 * units
    expected = first + (layers - 1) * (per_layer + 4 * units * units) + (units + 1) * outputs
    if not isinstance(weights, list) or len(weights) != expected:
        got = f"{len(weights)}" if isinstance(weights, list) else type(weights).__name__
        raise FormatError(
            f"weights: {layers} layers of {units} units, {features} inputs and {outputs} outputs "
            f"have {expected} numbers, got {got}"
        )
    numbers = _Numbers(read_numbers("weights", weights, (expected,)))
    start(draft, features, knobs=False)
    for _ in range(layers):
        _add_layer(draft, numbers, units)
    kernel, k_at = numbers.take(outputs, units)
    bias, b_at = numbers.take(outputs)
    draft.add(
        "head", Dense(units, outputs), {"kernel": kernel.T, "bias": bias},
        sources={k_at: (kernel.shape, ["kernel"]), b_at: (bias.shape, ["bias"])},
    )  # fmt: skip


_ARCHITECTURES = table([Row("LSTM", _lstm)])


class _Numbers:
    """The flat list of weights, taken from its front."""

    def __init__(self, numbers: Array) -> None:
        self._numbers, self._at = numbers, 0

    def take(self, *shape: int) -> tuple[Array, str]:
        """Return the next array, row by row, and where it is in the list."""
        begin, self._at = self._at, self._at + int(np.prod(shape))
        return self._numbers[begin : self._at].reshape(shape), f"weights[{begin}:{self._at}]"


def _add_layer(draft: Draft, numbers: _Numbers, units: int) -> None:
    """Append one layer: its kernels side by side, one bias, its initial states."""
    features = draft.features
    kernels, at = numbers.take(4 * units, features + units)
    bias, bias_at = numbers.take(4 * units)
    arrays = Weights(kernels[:, :features], kernels[:, features:], bias, np.zeros_like(bias))
    operation, weights = make_layer("LSTM", [arrays], batch_first=True)
    name = draft.builder.unused("lstm")
    states = [_add_state(draft, f"{name}_{state}", numbers.take(units)) for state in ("h", "c")]
    roles = [*became("kernel", [*weights]), *became("recurrent_kernel", [*weights])]
    draft.add(
        name, operation, weights, others=states,
        sources={
            at: (kernels.shape, roles), bias_at: (bias.shape, became("bias", [*weights])),
        },
    )  # fmt: skip


def _add_state(draft: Draft, name: str, taken: tuple[Array, str]) -> str:
    """Add an initial state of the model, for every sample of the batch; return its tensor."""
    value, at = taken
    last = draft.last
    draft.last = draft.builder.add(name, Constant(value.shape), [], {"value": value})[0]
    draft.note(at, value.shape, name, ["value"])
    draft.add(f"{name}_batch", Expand(((1, 0), *value.shape)), others=[INPUT])
    made, draft.last = draft.last, last
    return made
