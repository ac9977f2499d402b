"""Plot gates over time, and the differences between npylstm and the framework, with matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.io.npz import atomic_write
from npylstm.runtime.model import Model
from npylstm.spec import Case

__all__ = ["gates", "parity"]

_FORMATS = (".png", ".svg", ".pdf")

# Rows of the gate plot, for all kinds of recurrent layers: title and value range by field.
# Gates are in 0..1; the other fields are around 0.
_ROWS: dict[str, tuple[str, tuple[int, int] | None]] = {
    "i": ("input gate i", (0, 1)),
    "f": ("forget gate f", (0, 1)),
    "o": ("output gate o", (0, 1)),
    "z": ("update gate z", (0, 1)),
    "r": ("reset gate r", (0, 1)),
    "c_tilde": ("candidate c~", None),
    "h_tilde": ("candidate h~", None),
    "c": ("cell state c", None),
    "h": ("hidden state h", None),
}


def _new_figure(path: str, **options: Any) -> tuple[Any, Any]:
    """Make a figure and its axes, without pyplot's global state."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise NpylstmError(f"{path}: expected a picture ending in {', '.join(_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise NpylstmError(f"{path}: drawing needs matplotlib; pip install 'npylstm[plot]'")
    from matplotlib.figure import Figure

    rows, columns = options.pop("rows", 1), options.pop("columns", 1)
    figure = Figure(layout="constrained", **options)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: str) -> None:
    with atomic_write(path) as stream:
        figure.savefig(stream, format=Path(path).suffix[1:].lower(), dpi=120)


def gates(traced: Mapping[str, Any], path: str, sample: int = 0) -> None:
    """Draw every gate of every recurrent layer over time, units from top to bottom.

    Parameters
    ----------
    traced
        The result of :meth:`Model.trace`.
    path
        A ``.png``, ``.svg`` or ``.pdf``.
    sample
        Index of the sample in the batch.

    Raises
    ------
    NpylstmError
        If matplotlib is not installed or the suffix is unknown.
    """
    most = max((len(values) for values in traced.values()), default=1)
    size = (4.2 * len(traced) + 0.6, 1.6 * most + 0.4)
    figure, axes = _new_figure(path, rows=most, columns=len(traced), figsize=size)
    for column, (layer, values) in enumerate(traced.items()):
        fields = [field for field in _ROWS if field in values._fields]
        for axis in axes[len(fields) :, column]:
            axis.axis("off")
        for row, field in enumerate(fields):
            title, limits = _ROWS[field]
            panel: Array = getattr(values, field)[sample].T
            low, high = limits or (-_bound(panel), _bound(panel))
            axis = axes[row, column]
            image = axis.imshow(
                panel, aspect="auto", interpolation="nearest", vmin=low, vmax=high,
                cmap="viridis" if limits else "RdBu_r",
            )  # fmt: skip
            axis.set_title(f"{layer}: {title}", fontsize=9)
            axis.set_ylabel("unit", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.yaxis.get_major_locator().set_params(integer=True)
            figure.colorbar(image, ax=axis, pad=0.01).ax.tick_params(labelsize=7)
        axes[len(fields) - 1, column].set_xlabel("time step")
    _save(figure, path)


def _bound(panel: Array) -> float:
    return float(np.abs(panel).max(initial=0.0)) or 1.0


def parity(model: Model, cases: Sequence[Case], path: str) -> None:
    """Plot npylstm's outputs against the framework's, and the errors of both.

    Parameters
    ----------
    model, cases
        The model, and recorded cases of its framework.
    path
        A ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    NpylstmError
        If matplotlib is not installed or the suffix is unknown.
    """
    figure, axes = _new_figure(path, columns=2, figsize=(10.0, 4.5))
    left, right = axes[0]
    oracle = Model(model.spec.with_cases(()).astype("float64"), "numpy")
    names = [t.name for t in model.outputs]

    def joined(outputs: Iterable[Mapping[str, Array]]) -> Array:
        flat = [y[name].reshape(-1) for y in outputs for name in names]
        return np.concatenate(flat).astype(np.float64)

    framework = joined(case.outputs for case in cases)
    npylstm, truth = (joined(map(m.replay, cases)) for m in (model, oracle))
    left.plot([truth.min(), truth.max()], [truth.min(), truth.max()], color="0.7", zorder=0)
    left.scatter(framework, npylstm, s=8, color="tab:blue")
    left.set(xlabel="framework", ylabel="npylstm", title="outputs of all cases")
    for label, values, colour in (
        ("framework", framework, "tab:orange"),
        ("npylstm", npylstm, "tab:blue"),
    ):
        error = np.sort(np.abs(values - truth))
        right.plot(error, np.linspace(0, 1, error.size), label=label, color=colour)
    right.set_xscale("symlog", linthresh=1e-9)
    right.set(
        xlabel="absolute error against float64", ylabel="fraction of values up to it",
        title="errors of both sides",
    )  # fmt: skip
    right.legend()
    _save(figure, path)
