"""Captures of Automated-GuitarAmpModelling and GuitarML (NeuralPi, Proteus): PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm import FormatError
from npylstm.ops.dense import Dense
from npylstm_converters.amps.parts import add_skip, start
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.draft import Draft
from npylstm_converters.toolkit.json_files import read_choice, read_numbers, read_size
from npylstm_converters.toolkit.translation import Row, table, translate
from npylstm_converters.torch.ledger import entries_of_module
from npylstm_converters.torch.recurrent import Weights, make_layer

__all__ = ["guitarml"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def guitarml(draft: Draft, model_data: Any, state_dict: Any) -> None:
    """Translate a file of Automated-GuitarAmpModelling.

    Parameters
    ----------
    draft
        The model.
    model_data, state_dict
        The keys of the file.

    Raises
    ------
    Refusal
        If it is another model than ``SimpleRNN``, or has settings that are not known.
    FormatError
        If it is damaged.
    """
    if not isinstance(model_data, Mapping) or not isinstance(state_dict, Mapping):
        raise FormatError("expected objects model_data and state_dict")
    options = {name: value for name, value in model_data.items() if name != "model"}
    model = _MODELS[read_choice("model", model_data.get("model"), _MODELS)]
    translate(model, (draft, state_dict), (), options)


def _simple_rnn(
    source: tuple[Draft, Mapping[str, Any]],
    input_size: Any,
    skip: Any,
    output_size: Any,
    unit_type: Any,
    num_layers: Any,
    hidden_size: Any,
    bias_fl: Any,
) -> None:
    draft, tensors = source
    features, units = read_size("input_size", input_size), read_size("hidden_size", hidden_size)
    outputs, layers = read_size("output_size", output_size), read_size("num_layers", num_layers)
    columns = read_size("skip", skip, least=0)
    unit = read_choice("unit_type", unit_type, _GATES)
    if type(bias_fl) is not bool:
        raise FormatError(f"bias_fl: expected true or false, got {bias_fl!r:.60}")
    if columns and (columns != outputs or columns > features):
        raise Refusal(
            f"skip {columns} with {features} inputs and {outputs} outputs is not supported, only "
            "as many columns as outputs"
        )
    if layers > len(tensors):
        raise FormatError(f"num_layers: {layers} layers have more than {len(tensors)} tensors")
    start(draft, features)
    rows = _GATES[unit] * units
    rec = {
        f"{part}_l{k}": shape
        for k in range(layers)
        for part, shape in (
            ("weight_ih", (rows, units if k else features)), ("weight_hh", (rows, units)),
            ("bias_ih", (rows,)), ("bias_hh", (rows,)),
        )
    }  # fmt: skip
    lin: dict[str, tuple[int, ...]] = {"weight": (outputs, units)}
    lin |= {"bias": (outputs,)} if bias_fl else {}
    expected = {f"rec.{k}": s for k, s in rec.items()} | {f"lin.{k}": s for k, s in lin.items()}
    odd = sorted({*expected} ^ {*tensors})
    if odd:
        what = "missing" if odd[0] in expected else "not expected"
        raise FormatError(f"state_dict: {odd[0]!r:.80} is {what}")
    arrays = {name: read_numbers(name, tensors[name], shape) for name, shape in expected.items()}
    before, made = draft.last, []
    for k in range(layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = Weights(*(arrays[f"rec.{name}_l{k}"] for name in names))
        mode = "RNN_TANH" if unit == "RNN" else unit
        made.append(draft.add("rec", *make_layer(mode, [weights], batch_first=True)))
    named = {"kernel": arrays["lin.weight"].T} | ({"bias": arrays["lin.bias"]} if bias_fl else {})
    head = draft.add("lin", Dense(units, outputs, use_bias=bias_fl), named)
    draft.ledger += [*entries_of_module("rec", rec, made), *entries_of_module("lin", lin, [head])]
    if columns:
        add_skip(draft, before, columns)


_MODELS = table([Row("SimpleRNN", _simple_rnn)])
