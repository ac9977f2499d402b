"""Models and reports for the tests of pages, and a parser that checks a page."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
from builders import make_layer

from npylstm import ModelSpec
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.parity import Comparison, ParityReport
from npylstm.parity.comparison import summarise
from npylstm.spec import Edge, TensorSpec

# Whatever a file names, the page shows as text.
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "</style><b>bold</b>&amp;",
    "turned \u202e around",
)

# Names of layers hold no slash.
HOSTILE_LAYER = "<script>alert(3)<!--"


def nested(depth: int) -> list[object]:
    return [nested(depth - 1)] if depth else []


def two_headed() -> ModelSpec:
    """An LSTM with a sequence and a last step, added up with the input; names are hostile."""
    rng = np.random.default_rng(3)
    layers = [
        make_layer("lstm", LSTM(3, 6, return_sequences=True), rng),
        make_layer(HOSTILE_LAYER, Dense(6, 3), rng),
        make_layer("add", Arithmetic("add"), rng),
        make_layer("last", LSTM(3, 4), rng),
    ]
    edges = (
        Edge.call(layers[0], "x"),
        Edge.call(layers[1], "lstm"),
        Edge("add", (HOSTILE_LAYER, "x"), ("add",)),
        Edge.call(layers[3], "add"),
    )
    return ModelSpec(
        tuple(layers), edges, (TensorSpec("x", ("batch", "steps", 3)),), ("add", "last"),
        name=HOSTILE[0], provenance={
            "framework": HOSTILE[1], "decisions": [HOSTILE[2], HOSTILE[3]], "deep": nested(500),
            "wide": {HOSTILE[0]: "x" * 100_000},
        },
    )  # fmt: skip


class Page(HTMLParser):
    """Read a page strictly: every element that must be closed is, in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements left open"
        self.text = " ".join("".join(self.texts).split())
        self.count = Counter(name for name, _ in self.elements)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert not re.search(r"url\(|@import|https?:", data)
            return
        self.texts.append(data if "svg" not in self.open else f" {data} ")
        if self.headings and self.headings[-1][0] in self.open:
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)


SAFE = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "section", "article",
    "footer", "div", "span", "p", "b", "i", "br", "small", "code", "h1", "h2", "h3", "ul", "ol",
    "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tr", "th", "td", "details",
    "summary", "figure", "figcaption", "svg", "g", "path", "rect", "circle", "text",
}  # fmt: skip
SAFE_ATTRIBUTES = re.compile(
    r"lang|charset|http-equiv|content|name|id|class|data-tone|role|aria-[a-z]+|scope|tabindex|open|"
    r"style|viewbox|width|height|d|x|y|rx|cx|cy|r|transform|text-anchor|fill|stroke(-[a-z]+)?"
)


def check(text: str) -> Page:
    """Hold every page to the same rules."""
    page = Page(text)
    assert set(page.count) <= SAFE
    for name, attributes in page.elements:
        assert all(SAFE_ATTRIBUTES.fullmatch(key) for key in attributes), (name, attributes)
        for key in ("d", "x", "y", "width", "height", "viewbox", "transform"):
            if name != "meta" and key in attributes:
                assert not re.search("nan|inf|e[+-]?[0-9]", attributes[key].lower()), attributes
        if name == "svg":
            assert attributes.get("aria-hidden") or attributes["role"] == "img"
            assert attributes.get("aria-hidden") or len(attributes["aria-label"]) > 20
        if name == "path":
            assert re.fullmatch(r"[-MLHVChmlvz0-9. ]*", attributes["d"])
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a] == [
        k for k in ids if k.endswith("-h")
    ]
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.headings]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(text.encode()) < 1_000_000
    return page


def report_of(*comparisons: Comparison) -> ParityReport:
    return ParityReport(
        summarise(comparisons), len(comparisons), "torch 2.0", "numpy", comparisons=comparisons
    )
