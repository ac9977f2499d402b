"""The result of a diagnosis: the causes of a mismatch, and the share that each explains."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npylstm.parity.report import ParityReport
    from npylstm.spec import ModelSpec

__all__ = ["Cause", "Diagnosis"]


@dataclass(frozen=True)
class Cause:
    """One mistake that explains all or part of a mismatch.

    Attributes
    ----------
    kind
        A name from the table of mistakes, such as ``"gates_permuted"``.
    layer
        The layer with the mistake; None for the whole model, its inputs or its outputs.
    detail
        Plain values: ``{"order": "i f o c"}``, ``{"from": "tanh", "to": "relu"}``.
    explains
        The share of the squared mismatch that the correction removes, 0 to 1.
    passed
        Whether the corrected model agrees within rounding: then the cause is proven.
    fix
        One sentence: what to change, and where.
    spec
        The corrected model; None if the correction does not change the model.
    """

    kind: str
    layer: str | None
    detail: Mapping[str, Any]
    explains: float
    passed: bool
    fix: str
    spec: ModelSpec | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        where = f" in {self.layer}" if self.layer else ""
        details = ", ".join(f"{k} {v}" for k, v in self.detail.items())
        proof = "proven" if self.passed else f"explains {self.explains:.1%}, not proven"
        return f"{self.kind}{where}{f' ({details})' if details else ''}: {proof}. {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """Return the cause as JSON values.

        Returns
        -------
        dict
            All attributes but ``spec``.
        """
        return {
            "kind": self.kind, "layer": self.layer, "detail": dict(self.detail),
            "explains": self.explains, "passed": self.passed, "fix": self.fix,
        }  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """The reasons why outputs differ from a model's.

    Attributes
    ----------
    causes
        Proven ones first, then fitted ones, then others; empty if no cause is known.
    facts
        Sentences that describe the mismatch: its size, where it is, how it grows over the steps.
    first_bad_layer
        The first layer that differs from the reference activations; None without them.
    compared_layers
        The layers with reference activations.
    report
        The comparison that it explains, for the plots of :meth:`to_html`; None if there is none.
    """

    causes: tuple[Cause, ...] = ()
    facts: tuple[str, ...] = ()
    first_bad_layer: str | None = None
    compared_layers: tuple[str, ...] = ()
    report: ParityReport | None = field(default=None, repr=False, compare=False)

    @property
    def agrees(self) -> bool:
        """Return whether the outputs agree with the model's within rounding."""
        return not self.causes and not self.facts

    def __str__(self) -> str:
        if self.agrees:
            return "the outputs agree with the model's within rounding"
        lines = [f"cause: {cause}" for cause in self.causes]
        lines = lines or ["no known mistake explains the difference"]
        if self.first_bad_layer:
            lines.append(f"first layer that differs: {self.first_bad_layer}")
        return "\n".join([*lines, *(f"fact: {fact}" for fact in self.facts)])

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values.

        Returns
        -------
        dict
            ``causes``, ``facts`` and ``first_bad_layer``.
        """
        return {
            "causes": [cause.to_json() for cause in self.causes],
            "facts": list(self.facts),
            "first_bad_layer": self.first_bad_layer,
        }

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the diagnosis as one HTML page, as :meth:`npylstm.ParityReport.to_html`.

        Parameters
        ----------
        path
            The file to write, ending in ``.html``. An existing file is replaced.
        """
        from npylstm.parity import page

        page.write(path, self.report, self)
