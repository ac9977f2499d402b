"""docs/pytorch.md lists what the importer supports."""

from __future__ import annotations

import re
from pathlib import Path

from npylstm_converters.torch.module_options import CLASSES
from npylstm_converters.torch.rows import ROWS
from npylstm_converters.torch.support import class_list, operation_list

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/pytorch.md").read_text(encoding="utf-8")


def listed(what: str) -> str:
    return PAGE.partition(f"<!-- {what} -->\n")[2].partition(f"\n<!-- end of {what} -->")[0]


def test_the_lists_are_those_that_the_rows_give() -> None:
    assert listed("operations") == operation_list(), "python -m npylstm_converters.torch.support"
    assert listed("classes") == class_list(), "python -m npylstm_converters.torch.support"


def test_every_operation_and_class_is_listed_once() -> None:
    text = re.sub(r" \(only [^)]*\)", "", " ".join(listed("operations").rstrip(".").split()))
    names = text.split(", ")
    public = {t.split(".")[1].rstrip("_") for t in ROWS if re.match(r"aten\.[^_]", t)}
    assert sorted(names) == sorted(public)
    classes = " ".join(listed("classes").rstrip(".").split()).split(", ")
    assert sorted(classes) == sorted(CLASSES)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
