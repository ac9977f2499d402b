"""A sample of ``make mutate-models``: changed files are refused, or fail, or give the same outputs."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import npylstm
from mutations.models import MODELS
from mutations.mutations import Mutant, mutants, read_file, write_file
from mutations.scoring import judge, unexplained

EVERY = 3  # of the mutants; the command takes them all
SAMPLE = (
    "masked_both_ways", "masked_gate", "activations_with_numbers", "norms", "gru_of_both_kinds",
    "torch_gru_bare", "padding_behind_a_rescaling",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_changed_file_is_noticed(name: str, tmp_path: Path) -> None:
    npylstm.save(MODELS[name](), tmp_path / "model.npz")
    data = (tmp_path / "model.npz").read_bytes()
    model = npylstm.load(data, backend="numpy")
    assert model.verify().passed
    verdicts = [*judge(name, model, islice(mutants(data), 0, None, EVERY))]
    count = Counter(v.outcome for v in verdicts)
    assert not unexplained(verdicts)
    assert count["missed"] == 0
    assert count["told"] > 10


def test_a_change_that_no_case_shows_is_missed(tmp_path: Path) -> None:
    """The score itself: with one case of zeros, exchanged input kernels go unnoticed."""
    spec = MODELS["torch_gru_bare"]()
    zeros = [c for c in spec.cases if not any(x.any() for x in c.inputs.values())]
    assert zeros
    npylstm.save(spec.with_cases(zeros), tmp_path / "model.npz")
    data = (tmp_path / "model.npz").read_bytes()
    graph, arrays = read_file(data)
    first, second = "gru_l0/W_z", "gru_l0/W_r"
    changed = {**arrays, first: arrays[second], second: arrays[first]}
    mutant = Mutant("gates exchanged", "z and r, W", write_file(graph, changed))
    (verdict,) = judge("zeros", npylstm.load(data, backend="numpy"), [mutant])
    assert verdict.outcome == "missed"
    assert np.isfinite(verdict.difference)
    assert unexplained([verdict])
