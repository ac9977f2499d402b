"""The report of a comparison: numbers per output, a verdict, and the proof of the structure."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from npylstm import console
from npylstm.errors import ParityError
from npylstm.lazy import lazy_property
from npylstm.quantization import output_error

if TYPE_CHECKING:
    from npylstm.parity.comparison import Comparison, OutputParity
    from npylstm.parity.diagnosis import Diagnosis
    from npylstm.quantization import OutputError, Quantization
    from npylstm.spec import Case, ModelSpec

__all__ = ["PROOFS", "ParityReport"]

# The evidence for a model's structure, from the strongest to the weakest: the source or the
# author's outputs; the user's statement; a default.
PROOFS = ("proven", "stated", "assumed")


@dataclass(frozen=True)
class ParityReport:
    """The comparison of a model with its framework.

    Attributes
    ----------
    outputs
        One :class:`~npylstm.parity.OutputParity` per output.
    cases
        Number of compared cases.
    framework, backend
        The program that computed the expected outputs, and npylstm's engine.
    proof
        The evidence for the model's structure: ``"proven"``, ``"stated"`` or ``"assumed"``.
    stated
        Sentences about the structure that the user stated, or that were assumed.
    undecided
        Other chains of layers that give the author's own outputs as well.
    unproven
        Outputs that agree but prove nothing: all values are nan, the zeros of a dead relu, or no
        larger than what rounding changes.
    errors
        Of a quantized model: one :class:`~npylstm.quantization.OutputError` per output.
    comparisons
        The differences of each output in each case, for the plots.
    spec, replayed
        The compared model, and the cases; None and empty if unknown.
    diagnose
        The function that computes :attr:`diagnosis`; None if there is nothing to diagnose.
    """

    outputs: tuple[OutputParity, ...]
    cases: int
    framework: str
    backend: str
    proof: str = "proven"
    stated: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    errors: tuple[OutputError, ...] = ()
    comparisons: tuple[Comparison, ...] = field(default=(), repr=False, compare=False)
    spec: ModelSpec | None = field(default=None, repr=False, compare=False)
    replayed: tuple[Case, ...] = field(default=(), repr=False, compare=False)
    diagnose: Callable[[], Diagnosis] | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Return whether rounding explains every difference."""
        return all(o.passed for o in self.outputs)

    def __bool__(self) -> bool:
        return self.passed

    @lazy_property
    def diagnosis(self) -> Diagnosis | None:
        """Return the mistake that explains the difference; None if parity held. Computed once."""
        if self.passed or self.diagnose is None:
            return None
        return replace(self.diagnose(), report=self)

    def check(self) -> None:
        """Raise :class:`ParityError` unless parity holds."""
        if not self.passed:
            raise ParityError(self.verdict)

    @property
    def verdict(self) -> str:
        """Return the result in one sentence."""
        scope = f"{self.scope}, {self.backend} back end"
        failed = [o for o in self.outputs if not o.passed]
        if not failed and self.proof != "proven":
            return f"{self._agreement} ({scope})"
        if not failed:
            less = f"; nothing is proven of {' and '.join(self.unproven)}" if self.unproven else ""
            return f"parity held: {scope}{less}"
        worst = failed[0]
        if worst.output in self.budget:
            return f"parity FAILED: not within the budget: {self._cost(worst.output)} ({scope})"
        place = ", ".join(f"{k} {v}" for k, v in worst.where.items())
        return (
            f"parity FAILED: output {worst.output!r} differs by {worst.max_abs:.3g} at {place}, "
            f"rounding explains {worst.tolerance:.2g} ({scope})"
        )

    @property
    def scope(self) -> str:
        """Return the counts of cases and programs: ``9 recorded cases against torch 2.13.0``."""
        authors = sum(case.purpose == "author" for case in self.replayed)
        if authors == self.cases:
            authors = 0  # the framework is the author's program
        count = self.cases - authors
        text = f"{count} recorded case{'' if count == 1 else 's'} against {self.framework}"
        return f"{text} and {authors} of the author's" if authors else text

    @lazy_property
    def _quantization(self) -> Quantization | None:
        return self.spec.quantization if self.spec is not None and self.errors else None

    @property
    def budget(self) -> dict[str, OutputError]:
        """The budget of a quantized model, by output; empty if there is none."""
        return {} if self._quantization is None else self._quantization.budget

    def held(self, part: Comparison) -> bool:
        """Return whether an output of a case agrees, within rounding or within its budget.

        Parameters
        ----------
        part
            One of :attr:`comparisons`.

        Returns
        -------
        bool
        """
        if part.passed or self._quantization is None:
            return part.passed
        return self._quantization.accepts(output_error(part.output, [(part.framework, part.ours)]))

    def used(self, part: Comparison) -> float:
        """Return the largest difference as a share of the tolerance, or of the budget.

        Parameters
        ----------
        part
            One of :attr:`comparisons`.

        Returns
        -------
        float
            1 is the limit.
        """
        most = self.budget.get(part.output)
        if most is None or not 0 < most.max_abs < math.inf:
            return part.max_ratio
        return min(part.max_ratio, float(part.difference.max(initial=0.0)) / most.max_abs)

    def _cost(self, output: str) -> str:
        """Return what quantization costs in an output, and its budget."""
        (error,) = (error for error in self.errors if error.output == output)
        most = self.budget[output]
        if error.relative_rms <= most.relative_rms < math.inf or error.rms > most.rms:
            rms = (
                f"relative rms error of {error.relative_rms:.2%} of at most {most.relative_rms:.2%}"
            )
        else:
            rms = f"rms error of {error.rms:.2g} of at most {most.rms:.2g} in one case"
        return (
            f"output {output!r} has a {rms}, the largest difference is {error.max_abs:.2g} of at "
            f"most {most.max_abs:.2g}"
        )

    @property
    def _agreement(self) -> str:
        """Return the verdict on a model that agrees but whose structure is not proven."""
        short = self.framework or "the framework"
        if not short.startswith("the "):
            short = short.split()[0].lower()
        origin = self.spec.provenance if self.spec else {}
        if self.budget:
            costs = "; ".join(map(self._cost, self.budget))
            others = "; ".join(self.stated[:-1])  # the last is quantize's own
            rest = f"; not proven: {others}" if others else ""
            return f"the quantized model is within its budget: {costs}{rest}"
        if origin.get("dequantized") and len(self.stated) == 1:  # no chain is stated
            return (
                f"the engine agrees with {short} for the dequantized weights; that the quantized "
                f"model computes the same is not proven: {self.stated[0]}"
            )
        if origin.get("traced") and self.stated:
            return f"the engine agrees with {short}; not proven: {'; '.join(self.stated)}"
        torch = short == "torch" or origin.get("framework") == "PyTorch"
        way = "use from_torch(module)" if torch else "give --architecture"
        partly = ", and for what was assumed" if self.proof == "assumed" else ""
        if self.undecided:
            return (
                f"the engine agrees with {short} for the chain that you stated{partly}; the "
                f"author's outputs do not decide for it, as {self.undecided[0]} gives them, too: "
                "give --check-input/--check-output with more, and more different, samples"
            )
        return (
            f"the engine agrees with {short} for the chain that you stated{partly}; whether the "
            "chain is the author's forward is not proven: give --check-input/--check-output, or "
            f"{way}"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the numbers of each output as text.

        Returns
        -------
        header, rows
            Titles of the columns; one row for each output.
        """
        words = self.framework.removeprefix("the ").split()
        short = words[0].lower().removesuffix("'s") if words else "framework"
        header = ["output", "max abs", "max rel", "where", "rms", f"to float64: {short}",
                  "to float64: npylstm", "tolerance", "parity"]  # fmt: skip
        rows = [
            [
                o.output, f"{o.max_abs:.2e}", f"{o.max_rel:.2e}",
                " ".join(f"{k} {v}" for k, v in o.where.items()), f"{o.rms:.2e}",
                f"{o.framework_to_float64:.2e}", f"{o.npylstm_to_float64:.2e}",
                f"{o.tolerance:.2e}", "held" if o.passed else "FAILED",
            ]
            for o in self.outputs
        ]  # fmt: skip
        return header, rows

    def __str__(self) -> str:
        text = f"{console.plain_table(*self.table())}\n{self.verdict}"
        return text if self.diagnosis is None else f"{text}\n{self.diagnosis}"

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one HTML page without scripts or external resources.

        Parameters
        ----------
        path
            The file to write, ending in ``.html``. An existing file is replaced.

        Raises
        ------
        NpylstmError
            If the name has another ending.
        OSError
            If it cannot be written.
        """
        from npylstm.parity import page

        page.write(path, self)

    def _repr_html_(self) -> str:
        from npylstm.parity.page.notebook import report_html

        return report_html(self)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values.

        Returns
        -------
        dict
            ``passed``, ``verdict``, ``proof``, ``outputs``, ``diagnosis`` and the other attributes
            but ``comparisons``, ``spec`` and ``replayed``.
        """
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "proof": self.proof,
            "stated": list(self.stated),
            "undecided": list(self.undecided),
            "unproven": list(self.unproven),
            "cases": self.cases,
            "framework": self.framework,
            "backend": self.backend,
            "errors": [error.to_json() for error in self.errors],
            "outputs": [{k: _finite(v) for k, v in asdict(o).items()} for o in self.outputs],
            "diagnosis": None if self.diagnosis is None else self.diagnosis.to_json(),
        }


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
