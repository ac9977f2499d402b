"""Each limit of a quantized model's budget, alone: what breaks one of them is not accepted."""

from __future__ import annotations

import math

import pytest

from npylstm.quantization import OutputError, Quantization

# The budget is twice this: relative rms 0.02, rms of a case 0.2, largest difference 2.
RECORDED = OutputError("y", relative_rms=0.01, rms=0.1, max_abs=1.0, same_argmax=0.5)
MODEL = Quantization("int8", (), (RECORDED,), 3)


@pytest.mark.parametrize(
    ("relative_rms", "rms", "max_abs", "accepted"),
    [
        (0.02, 0.2, 2.0, True),
        (0.0, 0.0, 2.01, False),  # one value far off, among thousands
        (0.021, 0.2, 2.0, True),  # a case of small outputs
        (0.02, 0.21, 2.0, True),  # a case of large outputs
        (0.021, 0.21, 2.0, False),  # many values off
        (math.inf, 0.0, 0.0, True),  # the framework's outputs are zeros
        (math.inf, 0.21, 0.5, False),
        (math.inf, math.inf, math.inf, False),  # nan where the framework has none
    ],
)
def test_each_limit(relative_rms: float, rms: float, max_abs: float, accepted: bool) -> None:
    assert MODEL.accepts(OutputError("y", relative_rms, rms, max_abs)) == accepted


def test_what_was_not_measured_is_not_accepted() -> None:
    assert not MODEL.accepts(OutputError("another", 0.0, 0.0, 0.0))
    infinite = OutputError("y", math.inf, math.inf, math.inf)
    assert not Quantization("int8", (), (infinite,), 1).accepts(infinite)
