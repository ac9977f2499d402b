"""Recorded cases: inputs that show mistakes, and what the framework itself computes for them.

:mod:`traits` reads off a spec what its inputs must look like, :mod:`scenarios` lists what to try,
:mod:`inputs` draws the arrays, :mod:`recorder` runs the framework within a time budget.
"""

from npylstm_converters.recording.inputs import make_cases
from npylstm_converters.recording.recorder import BUDGET, record
from npylstm_converters.recording.scenarios import DEFAULT_CASES

__all__ = ["BUDGET", "DEFAULT_CASES", "make_cases", "record"]
