"""Tables, progress and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_chain

from npylstm import Model, NpylstmError, console, plot
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense
from npylstm.spec import Case


def test_a_plain_table_aligns() -> None:
    text = console.plain_table(["name", "count"], [["a", "1"], ["bcd", "1,000"]])
    assert text.splitlines() == ["name  count", "----  -----", "a         1", "bcd   1,000"]


@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal(rich: bool, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_has_rich", lambda: rich)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console.print_table(["name", "shape"], [["x", "[1]"]], title="title")
    out = capsys.readouterr().out
    assert "title" in out
    assert "[1]" in out
    with console.progress("work", 2) as advance:
        advance()
        advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err if rich else captured.err == "\rwork 1/2\rwork 2/2\n"


def test_no_progress_where_nobody_looks(capsys: Any) -> None:
    with console.progress("work", 1) as advance:
        advance()
    assert capsys.readouterr() == ("", "")


def model_with_cases() -> Model:
    spec = make_chain(LSTM(3, 5, return_sequences=True), LSTM(5, 4), Dense(4, 2))
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    return Model(spec.with_cases([Case({"x": x}, {"layer_2": Model(spec).predict(x)})]))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures_are_drawn(tmp_path: Path, suffix: str) -> None:
    model = model_with_cases()
    gates = model.trace(model.spec.cases[0].inputs)
    plot.gates(gates, str(tmp_path / f"g{suffix}"), sample=1)
    plot.parity(model, model.spec.cases, str(tmp_path / f"p{suffix}"))
    assert {p.name for p in tmp_path.iterdir()} == {f"g{suffix}", f"p{suffix}"}
    assert all(p.stat().st_size > 5_000 for p in tmp_path.iterdir())


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        NpylstmError, match=r"g\.png: drawing needs matplotlib; pip install 'npylstm\[plot\]'"
    ):
        plot.gates({}, "g.png")


def test_gates_of_every_kind_of_layer(tmp_path: Path) -> None:
    both = Bidirectional(
        GRU(5, 4, return_sequences=True), GRU(5, 4, return_sequences=True, go_backwards=True)
    )
    spec = make_chain(LSTM(3, 5, return_sequences=True), both, SimpleRNN(8, 6))
    traced = Model(spec, "numpy").trace(np.ones((2, 7, 3)))
    assert list(traced) == ["layer_0", "layer_1/forward", "layer_1/backward", "layer_2"]
    plot.gates(traced, str(tmp_path / "gates.png"))
    assert (tmp_path / "gates.png").stat().st_size > 20_000
