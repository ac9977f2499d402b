"""Recorded cases: inputs that show mistakes, and the framework's outputs for them.

:mod:`traits` derives the properties of the inputs from a spec, :mod:`scenarios` lists the cases,
:mod:`inputs` draws the arrays, :mod:`recorder` runs the framework within a time budget.
"""

from npylstm_converters.recording.inputs import make_cases
from npylstm_converters.recording.recorder import BUDGET, record
from npylstm_converters.recording.scenarios import DEFAULT_CASES

__all__ = ["BUDGET", "DEFAULT_CASES", "make_cases", "record"]
