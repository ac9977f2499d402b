"""Quantized models: how their weights are stored, what that costs, and their budget.

The weights of a model of 32 bits are rounded to a storage type (:mod:`npylstm.quantizing`). The
recorded cases of the framework are replayed with them, and the file keeps what was measured. Twice
that is the model's budget, by which :meth:`npylstm.Model.verify` judges it from then on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from npylstm import console
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.graph.parts import LayerSpec
from npylstm.spec import ModelSpec

__all__ = [
    "PROVENANCE", "LayerSize", "OutputError", "Quantization", "judged", "measure",
    "measured_errors", "output_error", "quantization_of",
]  # fmt: skip

# Other cases, of other inputs, have other errors.
_BUDGET_FACTOR = 2.0
PROVENANCE = "quantization"  # in the provenance


@dataclass(frozen=True)
class LayerSize:
    """The weights of a layer before and after.

    Attributes
    ----------
    name, kind
        Of the layer.
    type
        The storage type of its matrices; the model's dtype if they are not quantized.
    before, after
        Bytes of all its weights, biases included.
    """

    name: str
    kind: str
    type: str
    before: int
    after: int


@dataclass(frozen=True)
class OutputError:
    """What quantization costs in an output, over all recorded cases.

    Attributes
    ----------
    output
        Name of the output.
    relative_rms
        Root mean square of the difference from the framework's output, divided by that of the
        framework's output itself; inf if that is zero.
    rms
        The largest root mean square of the difference in one case.
    max_abs
        The largest difference.
    same_argmax
        Share of rows whose largest value is at the same place; None if rows have one value, or
        there are no rows.
    """

    output: str
    relative_rms: float
    rms: float
    max_abs: float
    same_argmax: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values.

        Returns
        -------
        dict
            None in place of inf.
        """
        return {k: None if v == math.inf else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Quantization:
    """How a model's weights are stored, and what that costs.

    Attributes
    ----------
    type
        The storage type, ``"int8"``, ``"bfloat16"`` or ``"int16"``; separated by commas if the
        file has several; the dtype of decoded weights.
    layers
        One :class:`LayerSize` for each layer with weights.
    outputs
        One :class:`OutputError` for each output; empty if there were no recorded cases.
    cases
        Number of recorded cases that were replayed.
    """

    type: str
    layers: tuple[LayerSize, ...]
    outputs: tuple[OutputError, ...]
    cases: int

    @property
    def before(self) -> int:
        """Bytes of all weights in float32."""
        return sum(layer.before for layer in self.layers)

    @property
    def after(self) -> int:
        """Bytes of all weights as they are stored."""
        return sum(layer.after for layer in self.layers)

    @property
    def budget(self) -> dict[str, OutputError]:
        """The largest errors that :meth:`npylstm.Model.verify` accepts, by output."""
        return {
            o.output: replace(
                o, relative_rms=_BUDGET_FACTOR * o.relative_rms, rms=_BUDGET_FACTOR * o.rms,
                max_abs=_BUDGET_FACTOR * o.max_abs, same_argmax=None,
            )
            for o in self.outputs
        }  # fmt: skip

    def accepts(self, measured: OutputError) -> bool:
        """Whether the errors of an output are within its budget.

        Outputs that are smaller than those of the recorded cases have larger relative errors, so
        the root mean square of the differences is compared as well: one of the two must be within
        the budget, and the largest difference.

        Parameters
        ----------
        measured
            Of replayed cases.

        Returns
        -------
        bool
            False if the output has no budget, or its recorded errors are infinite.
        """
        most = self.budget.get(measured.output)
        if most is None or not math.isfinite(most.max_abs) or measured.max_abs > most.max_abs:
            return False
        return measured.relative_rms <= most.relative_rms < math.inf or measured.rms <= most.rms

    def layer_table(self) -> tuple[list[str], list[list[str]]]:
        """Return the sizes of the layers as text.

        Returns
        -------
        header, rows
            Titles of the columns; one row for each layer, and one for all.
        """
        rows = [
            [layer.name, layer.kind, layer.type, f"{layer.before:,}", f"{layer.after:,}"]
            for layer in self.layers
        ]
        rows.append(["all", "", "", f"{self.before:,}", f"{self.after:,}"])
        return ["layer", "kind", "type", "bytes before", "bytes after"], rows

    def output_table(self) -> tuple[list[str], list[list[str]]]:
        """Return the errors of the outputs as text.

        Returns
        -------
        header, rows
            Titles of the columns; one row for each output.
        """
        budget = self.budget
        rows = [
            [
                o.output, _percent(o.relative_rms), _percent(budget[o.output].relative_rms),
                f"{o.max_abs:.2e}", f"{budget[o.output].max_abs:.2e}",
                "-" if o.same_argmax is None else f"{o.same_argmax:.2%}",
            ]
            for o in self.outputs
        ]  # fmt: skip
        header = ["output", "relative rms", "budget", "max abs", "budget", "same argmax"]
        return header, rows

    def __str__(self) -> str:
        text = console.plain_table(*self.layer_table())
        if not self.outputs:
            return f"{text}\nno recorded cases: what it costs is not known"
        count = f"{self.cases} recorded case{'s' if self.cases > 1 else ''}"
        return f"{text}\n{console.plain_table(*self.output_table())}\nmeasured on {count}"

    def to_json(self) -> dict[str, Any]:
        """Return the attributes and the budget as JSON values.

        Returns
        -------
        dict
            ``type``, ``layers``, ``outputs``, ``cases``, ``before``, ``after`` and ``budget``.
        """
        budget = {
            name: {k: v for k, v in o.to_json().items() if k not in ("output", "same_argmax")}
            for name, o in self.budget.items()
        }
        return {
            **asdict(self), "outputs": [o.to_json() for o in self.outputs],
            "before": self.before, "after": self.after, "budget": budget,
        }  # fmt: skip


def _percent(share: float) -> str:
    return f"{share:.3%}" if math.isfinite(share) else "-"


class _Expected(Protocol):
    @property
    def outputs(self) -> Mapping[str, Array]: ...


def measured_errors(
    spec: ModelSpec, cases: Sequence[_Expected], ours: Sequence[Mapping[str, Array]]
) -> tuple[Quantization | None, tuple[OutputError, ...]]:
    """Return how a model is quantized, and its errors in these cases; None and none if it is not.

    Parameters
    ----------
    spec
        Of the model.
    cases, ours
        As for :func:`measure`.

    Returns
    -------
    quantization, errors
        One :class:`OutputError` for each output.
    """
    quantization = spec.quantization
    return quantization, () if quantization is None else measure(cases, ours)


def judged(
    quantization: Quantization | None, errors: Sequence[OutputError]
) -> dict[str, tuple[bool, float]]:
    """Judge the outputs of a quantized model by its budget.

    Parameters
    ----------
    quantization, errors
        As :func:`measured_errors` returns them.

    Returns
    -------
    dict
        For each output with a budget, whether it is within it, and the largest difference allowed.
    """
    if quantization is None:
        return {}
    budget = quantization.budget
    return {
        error.output: (quantization.accepts(error), budget[error.output].max_abs)
        for error in errors
        if error.output in budget
    }


def measure(
    cases: Sequence[_Expected], ours: Sequence[Mapping[str, Array]]
) -> tuple[OutputError, ...]:
    """Compare outputs with those of recorded cases.

    Parameters
    ----------
    cases
        Recorded runs of the framework.
    ours
        For each case, npylstm's outputs by name.

    Returns
    -------
    tuple
        One :class:`OutputError` for each output.
    """
    return tuple(
        output_error(
            name, [(case.outputs[name], y[name]) for case, y in zip(cases, ours, strict=True)]
        )
        for name in (ours[0] if ours else ())
    )


def output_error(name: str, pairs: Sequence[tuple[Array, Array]]) -> OutputError:
    """Compare an output with the framework's.

    Parameters
    ----------
    name
        Of the output.
    pairs
        For each case, the framework's array and npylstm's.

    Returns
    -------
    OutputError
    """
    from npylstm.parity.comparison import difference

    by_case = [difference(b, a).reshape(-1) for a, b in pairs]
    differences = np.concatenate(by_case)
    values = np.concatenate([a.astype(np.float64).reshape(-1) for a, _ in pairs])
    size = float(np.sqrt(np.sum(np.square(values[np.isfinite(values)]))))
    with np.errstate(over="ignore"):
        distance = float(np.sqrt(np.sum(np.square(differences))))
        rms = max(float(np.sqrt(np.mean(np.square(d)))) if d.size else 0.0 for d in by_case)
    relative = distance / size if size else (math.inf if distance else 0.0)
    same = [
        (a.argmax(axis=-1) == b.argmax(axis=-1)).reshape(-1)
        for a, b in pairs
        if a.ndim and a.shape[-1] > 1 and a.size
    ]
    share = float(np.mean(np.concatenate(same))) if same else None
    return OutputError(name, relative, rms, float(differences.max(initial=0.0)), share)


def quantization_of(spec: ModelSpec) -> Quantization | None:
    """Return how a model is quantized.

    Parameters
    ----------
    spec
        Of the model.

    Returns
    -------
    Quantization or None
        None if no weight was rounded.

    Raises
    ------
    FormatError
        If what the file says of it is not of the expected form.
    """
    types = [s.storage for layer in spec.layers for s in layer.stored.values()]
    held = spec.provenance.get(PROVENANCE)
    if not types and held is None:
        return None
    outputs: tuple[OutputError, ...] = ()
    cases = 0
    if held is not None:
        try:
            cases = _count(held["cases"])
            outputs = tuple(
                OutputError(
                    name, _number(own["relative_rms"]), _number(own["rms"]),
                    _number(own["max_abs"]),
                    None if own["same_argmax"] is None else _number(own["same_argmax"], 1.0),
                )
                for name, own in held["outputs"].items()
                if name in spec.outputs
            )  # fmt: skip
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(
                f"provenance: quantization: not as quantize writes it: {error!r}"
            ) from None
    sizes = tuple(_size(layer, spec.dtype) for layer in spec.layers if layer.weights)
    return Quantization(", ".join(sorted({*types})) or spec.dtype, sizes, outputs, cases)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number of cases, got {value!r:.80}")
    return value


def _number(value: Any, most: float = math.inf) -> float:
    """Return a number of a file, where None stands for inf."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(f"expected a number from 0 to {most}, got {value!r:.80}")
    return float(value)


def _size(layer: LayerSpec, dtype: str) -> LayerSize:
    before = sum(w.nbytes for w in layer.weights.values())
    return LayerSize(layer.name, layer.kind, layer.storage or dtype, before, layer.stored_bytes)
