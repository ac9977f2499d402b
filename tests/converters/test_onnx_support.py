"""docs/onnx.md lists what the importer supports."""

from __future__ import annotations

import re
from pathlib import Path

from npylstm_converters.onnx.rows import ROWS
from npylstm_converters.onnx.support import operator_table

PAGE = (Path(__file__).parent.parent.parent / "docs/onnx.md").read_text(encoding="utf-8")


def test_the_table_of_operators_is_the_one_that_the_rows_give() -> None:
    listed = PAGE.partition("<!-- operators -->\n")[2].partition("\n<!-- end of operators -->")[0]
    assert listed == operator_table(), "python -m npylstm_converters.onnx.support"


def test_every_operator_is_in_the_table_once() -> None:
    cells = [line.split("|")[1] for line in operator_table().splitlines()[2:]]
    names = [re.sub(r" \(version .*\)", "", n).strip() for c in cells for n in c.split(",")]
    assert sorted(names) == sorted(ROWS)
