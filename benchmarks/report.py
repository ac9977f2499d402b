"""The benchmark's tables and picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

PEERS = ("torch", "onnxruntime", "openvino", "tf.function")
COLUMNS = ("npylstm", "npylstm (NumPy)", *PEERS)
RATIOS = ("ratio", "spread", "CPU ratio", "spread")
TITLES = {
    "grid": "LSTM, one thread: microseconds per call",
    "gru": "GRU, one thread: microseconds per call",
    "streams": "One step per call, the state carried on: microseconds",
    "steps": "Long sequences at batch 1: nanoseconds per time step",
}


def show(section: str, row: dict[str, Any]) -> None:
    """Print a row as it is measured."""
    line = f"{section:8s} {row['label']:49s}"
    for clock in ("", "cpu_"):
        if f"{clock}ratio" in row:
            low, high = row[f"{clock}spread"]
            name = "CPU ratio" if clock else "ratio"
            line += f" {name} {row[f'{clock}ratio']:.2f} ({low:.2f} to {high:.2f})"
    for name in ("gain_int8", "gain_bfloat16", "against_peer"):
        if name in row:
            line += f" {name} {row[name][1]:.2f}"
    if "of_floor" in row:
        line += f"  of floor {row['of_floor']:.0%}"
    if "microseconds" in row:
        line += "  us" + "".join(f" {n} {t:.4g}" for n, t in row["microseconds"].items())
    if "rms_error" in row:
        line += "  rms" + "".join(f" {n} {e:.2g}" for n, e in row["rms_error"].items())
    if row.get("wrong"):
        line += "  wrong: " + ", ".join(row["wrong"])
    print(line, flush=True)


def show_cold(rows: list[dict[str, Any]]) -> None:
    """Print how long processes take."""
    for row in rows:
        seconds = row["seconds"][len(row["seconds"]) // 2]
        print(
            f"cold     {row['name']:30s} {seconds:.3f} s  {row['peak_megabytes']:.0f} MB",
            flush=True,
        )


def table(document: dict[str, Any]) -> str:
    """Write all results as Markdown."""
    machine, versions = document["machine"], document["versions"]
    floors = document["floors"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f". One core: {floors['gflops']:.0f} GFLOP/s.",
        "",
    ]
    if document.get("models"):
        lines += _models(document["models"])
    for section, title in TITLES.items():
        if not document.get(section):
            continue
        lines += [f"### {title}", "", _line("batch x steps x features, layers x units", *COLUMNS,
                                           *RATIOS, "of floor", "rms / torch's"),
                  _line(*["---"] * (len(COLUMNS) + 7))]  # fmt: skip
        for row in document[section]:
            scale = 1000 / row["case"]["steps"] if section == "steps" else 1
            times = [_short(row["microseconds"][name] * scale) for name in COLUMNS]
            lines.append(_line(row["label"], *times, *_ratios(row), f"{row['of_floor']:.0%}",
                               _against_torch(row)))  # fmt: skip
        lines += ["", f"Ratio: the fastest peer's time to npylstm's. {summary(document[section])}",
                  ""]  # fmt: skip
    if document.get("ops"):
        lines += _ops(document["ops"])
    if document.get("quantized"):
        lines += _quantized(document["quantized"])
    if document.get("threads"):
        lines += ["### Two threads against one", "", _line("", "ratio", "spread", "same bits"),
                  _line(*["---"] * 4)]  # fmt: skip
        for row in document["threads"]:
            low, high = row["spread"]
            lines.append(_line(row["label"], f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}",
                               "yes" if row["same_bits"] else "no"))  # fmt: skip
        lines.append("")
    if "cold" in document:
        lines += ["### A process: import, load 20 units, predict once", "",
                  _line("", "seconds", "peak MB"), _line(*["---"] * 3)]  # fmt: skip
        for row in document["cold"]:
            seconds = row["seconds"][len(row["seconds"]) // 2]
            lines.append(_line(row["name"], f"{seconds:.3f}", f"{row['peak_megabytes']:.0f}"))
        lines.append("")
    return "\n".join(lines)


def _models(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0]["microseconds"])
    lines = ["### Whole models, one thread: microseconds per call", "",
             _line("", *names, *RATIOS, "rms", "rms / torch's"),
             _line(*["---"] * (len(names) + 7))]  # fmt: skip
    for row in rows:
        times = [_short(row["microseconds"][n]) + " wrong" * (n in row["wrong"]) for n in names]
        lines.append(_line(row["label"], *times, *_ratios(row),
                           f"{row['rms_error']['npylstm']:.1e}", _against_torch(row)))  # fmt: skip
    return [*lines, "", "Ratio: the fastest peer's time to npylstm's, without peers whose outputs "
            f"are wrong. {summary(rows)}", ""]  # fmt: skip


def _ops(rows: list[dict[str, Any]]) -> list[str]:
    batches = sorted({row["batch"] for row in rows})
    systems = ("npylstm", "onnxruntime")
    lines = ["### Single operations on (batch, 100, 128), one thread: microseconds per call", "",
             _line("", *(f"{name}, batch {n}" for n in batches for name in systems)),
             _line(*["---"] * (1 + len(systems) * len(batches)))]  # fmt: skip
    times = {(row["op"], row["batch"]): row["microseconds"] for row in rows}
    for op in dict.fromkeys(row["op"] for row in rows):
        own = [times.get((op, n), {}) for n in batches]
        cells = [_short(t[name]) if name in t else "" for t in own for name in systems]
        lines.append(_line(op, *cells))
    return [*lines, ""]


def _quantized(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0]["microseconds"])
    more = ("int8 / float32", "spread", "bfloat16 / float32", "spread", "int8 / ONNX Runtime's",
            "spread")  # fmt: skip
    lines = ["### Weights in fewer bits, one thread: CPU microseconds per call", "",
             _line("", *names, *more), _line(*["---"] * (1 + len(names) + len(more)))]  # fmt: skip
    for row in rows:
        cells = [_short(row["cpu_microseconds"][name]) for name in names]
        for name in ("gain_int8", "gain_bfloat16", "against_peer"):
            low, ratio, high = row[name]
            cells += [f"**{ratio:.2f}**", f"{low:.2f} to {high:.2f}"]
        lines.append(_line(row["label"], *cells))
    lines += ["", "Ratios of CPU time: npylstm's float32 to its quantized form, and the faster of "
              "ONNX Runtime's two int8 forms to npylstm's int8. Its GRUs stay in float32.",
              "", _line("rms error / rms of the output", *names),
              _line(*["---"] * (1 + len(names)))]  # fmt: skip
    for row in rows:
        errors = [f"{row['rms_error'][name] / row['size']:.1e}" for name in names]
        lines.append(_line(row["label"], *errors))
    return [*lines, ""]


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the geometric mean of the ratios, the worst, and how many are low."""
    parts = []
    for clock, title in (("", "On the clock"), ("cpu_", "CPU time")):
        ratios = [row[f"{clock}ratio"] for row in rows]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        low = ", ".join(f"{sum(r < n for r in ratios)} below {n}" for n in (1.0, 1.2))
        parts.append(f"{title}, {len(ratios)} cases: geometric mean {mean:.2f}, "
                     f"worst {min(ratios):.2f}, {low}.")  # fmt: skip
    return " ".join(parts)


def _ratios(row: dict[str, Any]) -> list[str]:
    cells = []
    for clock in ("", "cpu_"):
        low, high = row[f"{clock}spread"]
        cells += [f"**{row[f'{clock}ratio']:.2f}**", f"{low:.2f} to {high:.2f}"]
    return cells


def _against_torch(row: dict[str, Any]) -> str:
    return f"{row['rms_error']['npylstm'] / row['rms_error']['torch']:.2f}"


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw the time of each system in every cell of the grid, npylstm's being one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = document["grid"]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(rows) + 1.2), layout="constrained")
    places = range(len(rows))
    for name, marker in zip(PEERS, "osD^", strict=True):
        times = [row["microseconds"][name] / row["microseconds"]["npylstm"] for row in rows]
        axes.plot(times, places, marker, label=name, alpha=0.8)
    axes.axvline(1, color="black", label="npylstm")
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100, 200]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks(places, [row["label"].removeprefix("lstm ") for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time per call, times that of npylstm (one thread)")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
