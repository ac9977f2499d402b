"""Which entry of a PyTorch checkpoint is the state_dict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_weight_files import (
    FRAMINGS,
    NESTED,
    OLD_AND_NEW,
    OTHER,
    STATE,
    STEPS,
    assert_same,
    message,
    read,
    saved,
    trained,
    without_refusal,
)

import npylstm


@pytest.mark.parametrize("protocol", OLD_AND_NEW)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", NESTED)
def test_the_only_state_dict(name: str, framing: str, protocol: int, tmp_path: Path) -> None:
    thing, key = NESTED[name]
    data = saved(thing, framing, protocol)
    assert_same(read(data, tmp_path).tensors, STATE)
    assert_same(read(data, tmp_path, key=key).tensors, STATE)
    with pytest.raises(npylstm.NpylstmError) as error:
        read(data, tmp_path, key="nowhere")
    assert "nowhere" in message(error, tmp_path)
    assert key in message(error, tmp_path)


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "RMSprop", "Adagrad", "LBFGS"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_state_of_optimizers_is_no_candidate(optimizer: str, framing: str, tmp_path: Path) -> None:
    model, chosen, _ = trained(optimizer)
    state, steps = model.state_dict(), chosen.state_dict()
    beside = {"model": state, "optimizer": steps, "optimizers": [steps], "by_name": {"a": steps}}
    assert_same(read(saved(beside, framing), tmp_path).tensors, state)
    for alone in (steps, {"optimizer": steps, "epoch": 3}):
        with pytest.raises(npylstm.NpylstmError, match="state_dict"):
            read(saved(alone, framing), tmp_path)


SEVERAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "average": ({"model": STATE, "ema": OTHER, "optimizer": STEPS}, {"model": STATE, "ema": OTHER}),
    "nested": ({"nets": {"actor": STATE, "critic": OTHER}, "epoch": 3},
               {"nets.actor": STATE, "nets.critic": OTHER}),
    "of all depths": ({"a": STATE, "b": {"c": OTHER, "d": {"e": STATE}}},
                      {"a": STATE, "b.c": OTHER, "b.d.e": STATE}),
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", SEVERAL)
def test_several_state_dicts(name: str, framing: str, tmp_path: Path) -> None:
    thing, states = SEVERAL[name]
    data = saved(thing, framing)
    with pytest.raises(npylstm.NpylstmError) as error:
        read(data, tmp_path)
    text = message(error, tmp_path)
    assert re.search(r"`?\bkey\b", text)
    assert "--key" in text
    assert all(path in text for path in states), text
    assert not re.search("['\"`]optim", text), text
    for path, state in states.items():
        assert_same(read(data, tmp_path, key=path).tensors, state)


COINCIDING: dict[str, Any] = {
    "dots in a name": {"a": {"b": STATE}, "a.b": OTHER},
    "dots in a name, first": {"a.b": OTHER, "a": {"b": STATE}},
    "a number and its digits": {"1": STATE, 1: OTHER},
    "a list and its digits": {"a": [STATE], "a.0": OTHER},
    "none and its name": {None: OTHER, "None": STATE},
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", COINCIDING)
def test_paths_that_coincide(name: str, framing: str, tmp_path: Path) -> None:
    """Two state_dicts of one path are two: none may be chosen unasked, unless the other cannot."""
    found = without_refusal(saved(COINCIDING[name], framing), tmp_path)
    if found is not None:  # what lies below numbers, lists or None has no dotted path
        assert "dots" not in name
        assert_same(found, OTHER if name == "a list and its digits" else STATE)


@pytest.mark.parametrize("key", ["nowhere", "Model", "model.", ".model", "model.weight_ih_l0", "ema.x",
                                 "epoch", "optimizer", "optimizer.state", "", " ", "*"])  # fmt: skip
@pytest.mark.parametrize("framing", FRAMINGS)
def test_unknown_key(key: str, framing: str, tmp_path: Path) -> None:
    data = saved({"model": STATE, "ema": OTHER, "optimizer": STEPS, "epoch": 3}, framing)
    with pytest.raises(npylstm.NpylstmError) as error:
        read(data, tmp_path, key=key)
    text = message(error, tmp_path)
    assert key in text
    assert "model" in text
    assert "ema" in text


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_key_where_there_is_nothing_to_choose(framing: str, tmp_path: Path) -> None:
    with pytest.raises(npylstm.NpylstmError, match="model_state"):
        read(saved(STATE, framing), tmp_path, key="model_state")


NO_STATE_DICT: dict[str, Any] = {
    "none": None, "number": 3, "text": "state_dict", "numbers": {"epoch": 3}, "empty list": [],
    "a tensor": torch.ones(3), "numbered tensors": {0: torch.ones(3)}, "tuples": {("a",): torch.ones(2)},
    "a parameter": nn.Parameter(torch.ones(2)), "steps": {"optimizer": STEPS},
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", NO_STATE_DICT)
def test_no_state_dict(name: str, framing: str, tmp_path: Path) -> None:
    with pytest.raises(npylstm.NpylstmError) as error:
        read(saved(NO_STATE_DICT[name], framing), tmp_path)
    assert "state_dict" in message(error, tmp_path)
