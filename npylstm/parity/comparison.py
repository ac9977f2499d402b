"""Compare npylstm's outputs with the framework's, and decide whether rounding explains the errors.

The reference is the same model in float64. Rounding explains a difference that is as small as the
rounding errors of this model on this input. A wrong gate, bias or formula makes differences that
are larger by orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ParityError
from npylstm.lazy import lazy_property
from npylstm.parity.rounding import intermediate_scales
from npylstm.spec import Case, ModelSpec, TensorSpec

__all__ = [
    "Comparison", "OutputParity", "by_output", "compare", "difference", "rms", "summarise",
]  # fmt: skip

# Two correct float32 programs differ in the order of their sums and in the last bits of exp and
# tanh. These errors behave like noise: over a case's outputs the largest is a few times the root
# mean square (rms), and the two programs' rms differ by a small factor. 64 = 8 * 8: about 8 for the
# largest of thousands of values over their rms, and 8 for one program's rms over the other's. The
# smallest known mistakes, a hard_sigmoid with the other slope or a missing bias, are 1e3 to 1e6
# times the noise.
NOISE_FACTOR = 64
# NOISE_FACTOR assumes that errors have the same size in all values. After a softmax, or if few
# units are active, a few values have errors of many times the rms. For those the largest error is
# the measure: the largest errors of two programs differ by a small factor, the second 8 from above.
PEAK_FACTOR = 8

# If a run is exact by chance (zero inputs, saturated gates), the noise is taken as one unit in the
# last place (ulp) of the largest output. Intermediate values such as gates and exp(x) - 1 are of
# size one, so a program may lose some ulps of 1 although the outputs are small. A product with
# small weights scales that error down.
FLOOR_ULPS_OF_ONE = 8

# Values that are more than this many times their tolerance are evidence.
_EVIDENT = 10.0


@dataclass(frozen=True)
class OutputParity:
    """The comparison of one output over all cases.

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
        Each side's root mean square distance to a float64 run with the same weights. These do not
        decide ``passed``: if the model is wrong, the float64 run is wrong, too.
    tolerance
        The largest absolute difference that rounding explains, in the case of ``where``.
    passed
        Whether every case is within its tolerance.
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
    """The comparison of one output in one case.

    Attributes
    ----------
    output, case
        Name of the output, number of the case.
    framework, ours, exact
        The framework's output, npylstm's output, and npylstm's float64 output.
    moved
        float64 outputs with weights and inputs perturbed by up to one unit in the last place.
    time
        The time axis; None if there is none.
    floor
        The size of the intermediate values that are rounded: one number, or one for each feature;
        at most 1.
    """

    output: str
    case: int
    framework: Array
    ours: Array
    exact: Array
    moved: tuple[Array, ...]
    time: int | None = None
    floor: Array | float = 1.0

    @lazy_property
    def difference(self) -> Array:
        """Return absolute differences; see :func:`difference`."""
        return difference(self.ours, self.framework)

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the names of the axes for messages."""
        return _axis_names(self.ours.ndim)

    @lazy_property
    def tolerances(self) -> Array:
        """Return the largest difference that rounding explains, for every value.

        Features have different sizes, and noise grows with the steps. So each feature and step has
        its own tolerance, from the larger of two measures: its own noise up to that step, and the
        median over the features of noise relative to size. The second makes up for the few values
        of a small case.
        """
        if not self.ours.size:
            return np.zeros(self.ours.shape)
        eps = float(np.finfo(self.ours.dtype).eps)
        with np.errstate(invalid="ignore", over="ignore"):
            errors = [np.abs(y.astype(np.float64) - self.exact) for y in (self.ours, *self.moved)]
        noise = self._by_step(np.stack([np.where(np.isfinite(e), e, 0.0) for e in errors]))
        values = np.where(np.isfinite(self.exact), np.abs(self.exact), 0.0)
        size = self._by_step(values[None]).max(axis=(0, 1))
        typical = np.maximum.accumulate(_rms_of_first(noise), axis=0)
        peak = np.maximum.accumulate(noise.max(axis=0), axis=0)
        typical = np.maximum(typical, size * np.maximum(_relative(typical, size), eps))
        peak = np.maximum(peak, size * _relative(peak, size))
        least = FLOOR_ULPS_OF_ONE * eps * np.asarray(self.floor)
        tolerances = np.maximum(NOISE_FACTOR * typical, np.maximum(PEAK_FACTOR * peak, least))
        return self._spread(np.maximum(tolerances, np.finfo(self.ours.dtype).tiny))

    def _by_step(self, runs: Array) -> Array:
        """Reshape values of runs to (runs * samples, steps, features)."""
        if self.time is not None:
            steps = np.moveaxis(runs, self.time + 1, -2)
        elif runs.ndim > 2:
            steps = runs[..., None, :]
        else:
            steps = runs[..., None, None]
        return steps.reshape(-1, *steps.shape[-2:])

    def _spread(self, tolerances: Array) -> Array:
        """Broadcast (steps, features) to the shape of the output."""
        shape = self.ours.shape
        if self.time is not None:
            widened = tolerances.reshape(*(1,) * (len(shape) - 2), *tolerances.shape)
            tolerances = np.moveaxis(widened, -2, self.time)
        elif len(shape) < 2:
            tolerances = tolerances[0] if shape else tolerances[0, 0]
        return np.broadcast_to(tolerances, shape)

    @lazy_property
    def error_ratios(self) -> Array:
        """Return differences divided by ``tolerances``; rounding explains those up to 1."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            ratios = self.difference / self.tolerances
        # nan is inf / inf: difference and tolerance are both infinite.
        return np.where(self.difference == 0, 0.0, np.where(np.isnan(ratios), 1.0, ratios))

    @property
    def max_ratio(self) -> float:
        """Return the largest of ``error_ratios``."""
        return float(self.error_ratios.max(initial=0.0))

    @property
    def tolerance(self) -> float:
        """Return the tolerance of the value with the largest share."""
        if not self.error_ratios.size:
            return 0.0
        return float(self.tolerances.flat[int(np.argmax(self.error_ratios))])

    @property
    def is_evidence(self) -> Array:
        """Return which values are evidence: finite, and much larger than their tolerance."""
        with np.errstate(invalid="ignore"):
            size = np.abs(self.framework.astype(np.float64))
            return np.isfinite(size) & (size > _EVIDENT * self.tolerances)

    def errors(self, values: Array) -> Array:
        """Return finite errors against the float64 run."""
        with np.errstate(invalid="ignore", over="ignore"):
            error = values.astype(np.float64) - self.exact
        return error[np.isfinite(error)]

    @property
    def passed(self) -> bool:
        """Return whether rounding explains every difference."""
        return self.max_ratio <= 1

    @property
    def relative(self) -> float:
        """Return the largest relative difference of values above 1e-6 times the largest."""
        size = np.abs(self.framework.astype(np.float64))
        counted = np.isfinite(size) & (size > 1e-6 * size[np.isfinite(size)].max(initial=0.0))
        return float((self.difference[counted] / size[counted]).max(initial=0.0))


def difference(a: Array, b: Array) -> Array:
    """Return absolute differences; 0 for equal infinities and for nan on both sides."""
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(a.astype(np.float64) - b.astype(np.float64))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def by_output(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Return the comparisons of each output."""
    found: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        found.setdefault(comparison.output, []).append(comparison)
    return found


def _rms_of_first(values: Array) -> Array:
    """Return the root mean square of nonnegative numbers over the first axis."""
    largest = values.max(axis=0)
    scale = np.where(largest > 0, largest, 1.0)  # unscaled squares of divergent values overflow
    typical: Array = scale * np.sqrt(np.mean(np.square(values / scale), axis=0))
    return typical


def _relative(noise: Array, size: Array) -> Array:
    """Return the median over the features of noise / size: (steps, 1)."""
    known = size > 0
    if not known.any():
        return np.zeros((len(noise), 1))
    ratios = noise[:, known] / size[known]
    return np.quantile(ratios, 0.5, axis=1, method="lower")[:, None]


def rms(values: Array) -> float:
    """Return the root mean square, 0 if empty; scaled, as squares of large values overflow."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


def compare(
    spec: ModelSpec,
    cases: Sequence[Case],
    ours: Sequence[Mapping[str, Array]],
    exact: Sequence[Mapping[str, Array]],
    moved: Sequence[Sequence[Mapping[str, Array]]],
) -> tuple[Comparison, ...]:
    """Compare recorded outputs of the framework with npylstm's.

    Parameters
    ----------
    spec
        The model.
    cases
        Recorded runs of the framework.
    ours
        For each case, npylstm's outputs by name.
    exact, moved
        Results of :func:`~npylstm.parity.trial.float64_runs`; ``exact`` may hold all tensors.

    Returns
    -------
    tuple
        One comparison for every output of every case.

    Raises
    ------
    ParityError
        If an output is missing in a case, or its shape differs from the framework's.
    """
    times = {t.name: _steps_axis(t, spec) for t in spec.output_specs}
    compared = []
    for k, (case, mine, truth) in enumerate(zip(cases, ours, exact, strict=True)):
        sizes = intermediate_scales(spec, truth)
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
            floor = sizes.get(name, 1.0)
            compared.append(
                Comparison(name, k, expected, array, truth[name], others, times[name], floor)
            )
    return tuple(compared)


def _steps_axis(output: TensorSpec, spec: ModelSpec) -> int | None:
    """Return an output's time axis; (2, batch, units) are states of two layers, without time."""
    axis = output.time_axis
    if axis != 0 or isinstance(output.shape[0], str):
        return axis
    lengths = [t.shape[t.time_axis] for t in spec.inputs if t.time_axis is not None]
    return axis if output.shape[0] in lengths else None


def summarise(
    comparisons: Sequence[Comparison], judged: Mapping[str, tuple[bool, float]] | None = None
) -> tuple[OutputParity, ...]:
    """Return one summary for every output over all cases.

    ``judged`` are outputs of a quantized model: whether they are within the model's budget, and the
    largest difference that it allows.
    """
    return tuple(
        _summarise(name, parts, *(judged or {}).get(name, (False, 0.0)))
        for name, parts in by_output(comparisons).items()
    )


def _axis_names(ndim: int) -> tuple[str, ...]:
    if ndim <= 2:
        return ("sample", "feature")[:ndim]
    return ("sample", "step", *(f"axis{k}" for k in range(2, ndim - 1)), "feature")


def _summarise(name: str, parts: list[Comparison], is_accepted: bool, limit: float) -> OutputParity:
    largest = [p.difference.max(initial=0.0) for p in parts]
    ratios = [p.max_ratio for p in parts]
    passed = is_accepted or max(ratios) <= 1
    # Show the largest difference; if rounding does not explain it, the largest share of tolerance.
    by_size = passed or limit > 0
    worst = int(np.argmax(largest if by_size else ratios))
    part = parts[worst]
    where = {"case": part.case}
    if part.difference.size:
        shown = part.difference if by_size else part.error_ratios
        index = np.unravel_index(int(np.argmax(shown)), shown.shape)
        where |= {axis: int(i) for axis, i in zip(part.axes, index, strict=True)}
    everything = np.concatenate([p.difference.reshape(-1) for p in parts])
    return OutputParity(
        output=name,
        max_abs=float(part.difference[index]) if part.difference.size else 0.0,
        max_rel=part.relative,
        where=where,
        rms=rms(everything),
        framework_to_float64=rms(np.concatenate([p.errors(p.framework) for p in parts])),
        npylstm_to_float64=rms(np.concatenate([p.errors(p.ours) for p in parts])),
        tolerance=max(limit, float(part.tolerances[index])) if part.difference.size else limit,
        passed=bool(passed),
    )
