"""Parity: how far npylstm is from the framework, and whether rounding explains it.

The yardstick is the model itself in float64. Both the framework's recorded outputs and
npylstm's are measured against it. A disagreement is explained by rounding if it is of the
size of the rounding errors that this model shows on this input; a wrong gate, bias or
formula is larger by orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from npylstm import console
from npylstm.errors import ParityError
from npylstm.layers.base import Array
from npylstm.spec import Case, ModelSpec

__all__ = ["OutputParity", "ParityReport", "compare", "perturbed"]

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

# The noise is the larger of two measures: npylstm's own error against the float64 run, and what
# becomes of the float64 run when every weight and input is moved by up to one unit in the last
# place. The second shows how far this model amplifies rounding even where npylstm is lucky, and is
# the only one where npylstm itself computes in float64.
PERTURBATIONS = 2

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
    framework_rms_error, npylstm_rms_error
        Either side's rms error against the float64 run.
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
    framework_rms_error: float
    npylstm_rms_error: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class ParityReport:
    """The comparison of a model with its framework: one entry per output, and a verdict."""

    outputs: tuple[OutputParity, ...]
    cases: int
    framework: str
    backend: str

    @property
    def passed(self) -> bool:
        """The verdict: whether rounding explains every difference."""
        return all(o.passed for o in self.outputs)

    def __bool__(self) -> bool:
        return self.passed

    def check(self) -> None:
        """Raise :class:`ParityError` unless parity holds."""
        if not self.passed:
            raise ParityError(self.verdict)

    @property
    def verdict(self) -> str:
        """One sentence."""
        scope = f"{self.cases} recorded cases against {self.framework}, {self.backend} back end"
        failed = [o for o in self.outputs if not o.passed]
        if not failed:
            return f"parity held: {scope}"
        worst = failed[0]
        place = ", ".join(f"{k} {v}" for k, v in worst.where.items())
        return (
            f"parity FAILED: output {worst.output!r} differs by {worst.max_abs:.3g} at {place}, "
            f"rounding explains {worst.tolerance:.2g} ({scope})"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows for printing."""
        header = ["output", "max abs", "max rel", "where", "rms", "framework rms error",
                  "npylstm rms error", "tolerance", "parity"]  # fmt: skip
        rows = [
            [
                o.output, f"{o.max_abs:.2e}", f"{o.max_rel:.2e}",
                " ".join(f"{k} {v}" for k, v in o.where.items()), f"{o.rms:.2e}",
                f"{o.framework_rms_error:.2e}", f"{o.npylstm_rms_error:.2e}",
                f"{o.tolerance:.2e}", "held" if o.passed else "FAILED",
            ]
            for o in self.outputs
        ]  # fmt: skip
        return header, rows

    def __str__(self) -> str:
        return f"{console.plain_table(*self.table())}\n{self.verdict}"

    def to_json(self) -> dict[str, Any]:
        """Write everything as plain JSON values."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "cases": self.cases,
            "framework": self.framework,
            "backend": self.backend,
            "outputs": [{k: _finite(v) for k, v in asdict(o).items()} for o in self.outputs],
        }


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class _Comparison:
    """One output in one case."""

    framework: Array
    ours: Array
    exact: Array
    moved: tuple[Array, ...]
    axes: tuple[str, ...]

    def __post_init__(self) -> None:
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.ours.astype(np.float64) - self.framework.astype(np.float64))
        # Equal infinities and nan on both sides agree; on one side only they do not.
        same = (self.ours == self.framework) | (np.isnan(self.ours) & np.isnan(self.framework))
        self.difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))

    @property
    def tolerance(self) -> float:
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
    def relative(self) -> float:
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
    framework: str,
    backend: str,
) -> ParityReport:
    """Compare recorded outputs of the framework with npylstm's.

    Parameters
    ----------
    cases
        Recorded runs of the framework.
    ours, exact
        For each case, npylstm's outputs by name: as they are to be judged, and in float64.
    moved
        More float64 runs of all cases, of :func:`perturbed` models on perturbed inputs.
    framework, backend
        For the report.

    Returns
    -------
    ParityReport

    Raises
    ------
    ParityError
        If an output has another shape than the framework's.
    """
    compared: dict[str, list[_Comparison]] = {}
    for k, (case, mine, truth) in enumerate(zip(cases, ours, exact, strict=True)):
        for name, array in mine.items():
            expected = case.outputs[name]
            if expected.shape != array.shape:
                raise ParityError(
                    f"output {name!r}: the framework gave shape {expected.shape}, "
                    f"npylstm {array.shape}"
                )
            others = tuple(run[k][name] for run in moved)
            part = _Comparison(expected, array, truth[name], others, _axis_names(array.ndim))
            compared.setdefault(name, []).append(part)
    outputs = tuple(_summarise(name, parts) for name, parts in compared.items())
    return ParityReport(outputs, len(cases), framework, backend)


def perturbed(
    spec: ModelSpec, cases: Sequence[Case], seed: int
) -> tuple[ModelSpec, tuple[Case, ...]]:
    """Move every weight, input and state by up to one unit in the last place of the model's type.

    Returns
    -------
    spec, cases
        In float64, without the cases' outputs.
    """
    rng, eps = np.random.default_rng(seed), np.finfo(spec.dtype).eps
    whole = {t.name for t in spec.inputs if t.whole}  # ids are exact

    def move(array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        moved: Array = array.astype(np.float64) * (1 + eps * rng.uniform(-1, 1, array.shape))
        return moved

    layers = tuple(
        replace(layer, weights={k: move(w) for k, w in layer.weights.items()})
        for layer in spec.layers
    )
    inputs = tuple(
        Case(
            {k: x if k in whole else move(x) for k, x in case.inputs.items()},
            {},
            {k: {n: move(a) for n, a in v.items()} for k, v in case.state.items()},
            case.lengths,
        )
        for case in cases
    )
    return replace(spec, layers=layers, dtype="float64", cases=()), inputs


def _axis_names(ndim: int) -> tuple[str, ...]:
    if ndim <= 2:
        return ("sample", "feature")[:ndim]
    return ("sample", "step", *(f"axis{k}" for k in range(2, ndim - 1)), "feature")


def _summarise(name: str, parts: list[_Comparison]) -> OutputParity:
    largest = [p.difference.max(initial=0.0) for p in parts]
    strain = [difference / p.tolerance for difference, p in zip(largest, parts, strict=True)]
    passed = max(strain) <= 1
    # Show the largest difference; where parity failed, the one that is least explained.
    worst = int(np.argmax(largest if passed else strain))
    part = parts[worst]
    where = {"case": worst}
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
        framework_rms_error=rms(np.concatenate([p.errors(p.framework) for p in parts])),
        npylstm_rms_error=rms(np.concatenate([p.errors(p.ours) for p in parts])),
        tolerance=part.tolerance,
        passed=bool(passed),
    )
