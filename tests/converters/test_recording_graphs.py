"""Twenty functional graphs in both generations of Keras: all cases are recorded, and hold."""

from __future__ import annotations

import math

import npylstm_converters as nc
import pytest
from keras_graphs import randomise
from npylstm_converters.keras.runner import KerasRunner
from recorded_graphs import FRAMEWORKS, GRAPHS

from npylstm import Model


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.one_in(2)
def test_all_cases_are_recorded_and_hold(framework: str, name: str) -> None:
    k, ops = FRAMEWORKS[framework]
    model = GRAPHS[name](k, k.layers, ops)
    randomise(model, seed=len(name))
    spec = nc.from_keras(model)
    recorded = nc.record(
        spec, KerasRunner(model, spec), nc.recording.DEFAULT_CASES, budget=math.inf
    )
    assert "not_recorded" not in recorded.provenance
    assert len(recorded.cases) == 8
    purposes = {case.purpose for case in recorded.cases}
    assert ("state" in purposes) == bool(spec.state_shapes())
    assert ("padding" in purposes) == any("mask" in t for e in spec.edges for t in e.outputs)
    Model(recorded, "numpy").verify().check()
