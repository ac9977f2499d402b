"""The state of a stream before its first step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npylstm.graph.state import State, zero_state
from npylstm.graph.stream_plan import Plan
from npylstm.ops.shapes import BATCH, STEPS
from npylstm.runtime.numpy_engine import NumpyEngine

__all__ = ["initial_state"]


def initial_state(plan: Plan, batch: int) -> State:
    """Return the state before the first step: what the graph computes, else zeros."""
    state = zero_state(plan.spec.state_shapes(), batch, plan.spec.dtype)
    if not plan.initial_states:
        return state
    wanted = [t for entries in plan.initial_states.values() for t in entries.values()]
    spec = replace(plan.origin, outputs=tuple(dict.fromkeys(wanted)))
    sizes = {BATCH: batch, STEPS: 1}
    inputs = {
        t.name: np.zeros([sizes[d] if isinstance(d, str) else d for d in t.shape], spec.dtype)
        for t in spec.inputs
    }
    zeros = zero_state(spec.state_shapes(), batch, spec.dtype)
    made, _ = NumpyEngine(spec).run(inputs, zeros)
    for call, entries in plan.initial_states.items():
        state[call] = {name: np.array(made[t]) for name, t in entries.items()}
    return state
