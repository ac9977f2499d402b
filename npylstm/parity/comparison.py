"""Parity: how far npylstm is from the framework, and whether rounding explains it.

The yardstick is the model itself in float64. Both the framework's recorded outputs and
npylstm's are measured against it. A disagreement is explained by rounding if it is of the
size of the rounding errors that this model shows on this input; a wrong gate, bias or
formula is larger by orders of magnitude.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from npylstm.errors import NpylstmError, ParityError
from npylstm.layers.base import Array
from npylstm.spec import Case

__all__ = ["Comparison", "OutputParity", "check_evidence", "compare", "rms", "summarise"]

# Two correct float32 programs differ in the order of their sums and in the last bits of exp and
# tanh. Errors so made behave like noise: over a case's outputs the largest is a few times the
# root mean square, and the two programs' rms differ by a small factor. 64 leaves room for
# both (about 8 for the largest of thousands of values over their rms, 8 for one program against
# the other). The smallest mistakes that are known, a hard_sigmoid of the other slope or
# a lost bias, are 1e3 to 1e6 times the noise.
NOISE_FACTOR = 64
# That counts on errors that are alike in all values. Behind a softmax, or where few units are
# awake, they sit in few values, many times the rms. The largest error itself tells of those: the
# largest of the other program is a small factor apart, the 8 from above.
PEAK_FACTOR = 8

# Where the run happens to be exact (zeros in, saturated gates) the noise is taken to be one unit
# in the last place of the largest output. And gates, exp(x) - 1 and the like are of size one
# on the way, so that a program may lose some units in the last place of one
# even where the outputs are small.
FLOOR_ULPS_OF_ONE = 8


@dataclass(frozen=True)
class OutputParity:
    """One output compared over all cases.

    Attributes
    ----------
    output
        Name of the output.
    max_abs, max_rel
        Largest absolute difference between npylstm and the framework, and largest difference
        relative to the framework's value, taken over values above one millionth of the largest.
    where
        Indices of ``max_abs``: case, sample, step, feature.
    rms
        Root mean square of the difference.
    framework_to_float64, npylstm_to_float64
        Either side's root mean square distance to a float64 run of the same weights. A fact, not a
        judgement: where the model itself is wrong, the float64 run is wrong, too.
    tolerance
        The largest absolute difference that rounding explains, in the case of ``where``.
    passed
        Whether every case stayed within its tolerance.
    """

    output: str
    max_abs: float
    max_rel: float
    where: dict[str, int]
    rms: float
    framework_to_float64: float
    npylstm_to_float64: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Comparison:
    """One output in one case.

    Attributes
    ----------
    output, case
        Name of the output, number of the case.
    framework, ours, exact
        What the framework gave, what npylstm gives, and npylstm's float64 run.
    moved
        float64 runs with weights and inputs moved by a unit in the last place.
    """

    output: str
    case: int
    framework: Array
    ours: Array
    exact: Array
    moved: tuple[Array, ...]

    @functools.cached_property
    def difference(self) -> Array:
        """Absolute differences; equal infinities agree, and nan on both sides."""
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(self.ours.astype(np.float64) - self.framework.astype(np.float64))
        same = (self.ours == self.framework) | (np.isnan(self.ours) & np.isnan(self.framework))
        return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))

    @property
    def axes(self) -> tuple[str, ...]:
        """What the axes are, for people."""
        return _axis_names(self.ours.ndim)

    @functools.cached_property
    def tolerance(self) -> float:
        """The largest absolute difference that rounding explains."""
        eps = float(np.finfo(self.ours.dtype).eps)
        largest = float(np.abs(self.exact[np.isfinite(self.exact)]).max(initial=0.0))
        runs = [self.errors(y) for y in (self.ours, *self.moved)]
        noise = max(*map(rms, runs), eps * largest)
        peak = max(float(np.abs(errors).max(initial=0.0)) for errors in runs)
        return max(NOISE_FACTOR * noise, PEAK_FACTOR * peak, FLOOR_ULPS_OF_ONE * eps)

    def errors(self, values: Array) -> Array:
        """Finite errors against the float64 run."""
        with np.errstate(invalid="ignore", over="ignore"):
            error = values.astype(np.float64) - self.exact
        return error[np.isfinite(error)]

    @property
    def passed(self) -> bool:
        """Whether rounding explains every difference."""
        return bool(self.difference.max(initial=0.0) <= self.tolerance)

    @property
    def relative(self) -> float:
        """The largest relative difference, of values above a millionth of the largest."""
        size = np.abs(self.framework.astype(np.float64))
        counted = np.isfinite(size) & (size > 1e-6 * size[np.isfinite(size)].max(initial=0.0))
        return float((self.difference[counted] / size[counted]).max(initial=0.0))


def rms(values: Array) -> float:
    """Root mean square; 0 of nothing. Scaled, because squares of what diverges would overflow."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


def compare(
    cases: Sequence[Case],
    ours: Sequence[Mapping[str, Array]],
    exact: Sequence[Mapping[str, Array]],
    moved: Sequence[Sequence[Mapping[str, Array]]],
) -> tuple[Comparison, ...]:
    """Set recorded outputs of the framework beside npylstm's.

    Parameters
    ----------
    cases
        Recorded runs of the framework.
    ours, exact
        For each case, npylstm's outputs by name: as they are to be judged, and in float64.
    moved
        More float64 runs of all cases, of :func:`~npylstm.parity.rounding.perturbed` models.

    Returns
    -------
    tuple
        One comparison for every output of every case.

    Raises
    ------
    ParityError
        If an output has another shape than the framework's, or a case does not have it.
    """
    compared = []
    for k, (case, mine, truth) in enumerate(zip(cases, ours, exact, strict=True)):
        for name, array in mine.items():
            if name not in case.outputs:
                held = ", ".join(case.outputs) or "none"
                raise ParityError(f"output {name!r}: not in case {k}, which has {held}")
            expected = case.outputs[name]
            if expected.shape != array.shape:
                raise ParityError(
                    f"output {name!r}: the framework gave shape {expected.shape}, "
                    f"npylstm {array.shape}"
                )
            others = tuple(run[k][name] for run in moved)
            compared.append(Comparison(name, k, expected, array, truth[name], others))
    return tuple(compared)


def check_evidence(name: str, comparisons: Sequence[Comparison]) -> None:
    """Refuse a verdict on outputs of which no value is a finite number: nan agrees with all nan."""
    finite = {c.output for c in comparisons if np.isfinite(c.framework).any()}
    agreeing = {c.output for c in comparisons} - {c.output for c in comparisons if not c.passed}
    empty = sorted(agreeing - finite)
    if empty:
        raise NpylstmError(
            f"{name}: {' and '.join(empty)}: no value of any case is a finite number, so that "
            "nothing can be proven; give cases with finite outputs, "
            "or check the weights that were trained"
        )


def summarise(comparisons: Sequence[Comparison]) -> tuple[OutputParity, ...]:
    """Judge every output over all cases."""
    by_output: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_output.setdefault(comparison.output, []).append(comparison)
    return tuple(_summarise(name, parts) for name, parts in by_output.items())


def _axis_names(ndim: int) -> tuple[str, ...]:
    if ndim <= 2:
        return ("sample", "feature")[:ndim]
    return ("sample", "step", *(f"axis{k}" for k in range(2, ndim - 1)), "feature")


def _summarise(name: str, parts: list[Comparison]) -> OutputParity:
    largest = [p.difference.max(initial=0.0) for p in parts]
    strain = [difference / p.tolerance for difference, p in zip(largest, parts, strict=True)]
    passed = max(strain) <= 1
    # Show the largest difference; where parity failed, the one that is least explained.
    worst = int(np.argmax(largest if passed else strain))
    part = parts[worst]
    where = {"case": part.case}
    if part.difference.size:
        index = np.unravel_index(int(np.argmax(part.difference)), part.difference.shape)
        where |= {axis: int(i) for axis, i in zip(part.axes, index, strict=True)}
    everything = np.concatenate([p.difference.reshape(-1) for p in parts])
    return OutputParity(
        output=name,
        max_abs=float(part.difference.max(initial=0.0)),
        max_rel=part.relative,
        where=where,
        rms=rms(everything),
        framework_to_float64=rms(np.concatenate([p.errors(p.framework) for p in parts])),
        npylstm_to_float64=rms(np.concatenate([p.errors(p.ours) for p in parts])),
        tolerance=part.tolerance,
        passed=bool(passed),
    )
