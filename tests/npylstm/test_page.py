"""The report for people: what the page holds, that nothing in it runs, how a browser shows it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from builders import make_chain, make_layer

import npylstm
from npylstm import Model, ModelSpec, NpylstmError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.parity import Comparison, ParityReport
from npylstm.parity.comparison import summarise
from npylstm.parity.diagnosis import Cause, Diagnosis
from npylstm.parity.page import evidence, render
from npylstm.parity.page.layout import layout
from npylstm.spec import Case, Edge, LayerSpec, TensorSpec

RNG = np.random.default_rng(0)

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


def recorded(spec: ModelSpec, sizes: tuple[tuple[int, int], ...] = ((2, 9), (1, 1))) -> ModelSpec:
    """Record a model's own float64 outputs, rounded, as if a framework had computed them."""
    oracle, cases = Model(spec.astype("float64"), "numpy"), []
    for batch, steps in sizes:
        x = RNG.normal(size=(batch, steps, 3)).astype("float32")
        y = oracle.predict(x)
        named = y if isinstance(y, dict) else {spec.outputs[0]: y}
        outputs = {k: v.astype("float32") for k, v in named.items()}
        cases.append(Case({"x": x}, outputs, purpose=f"steps {steps} <i>"))
    return spec.with_cases(cases)


@pytest.fixture(scope="module")
def held() -> ParityReport:
    return Model(recorded(two_headed()), "numpy").verify()


@pytest.fixture(scope="module")
def failed() -> ParityReport:
    """The same model with two gates exchanged, and a diagnosis."""
    spec = recorded(two_headed())
    lstm = spec["last"]
    weights = {**lstm.weights, "W_i": lstm.weights["W_f"], "W_f": lstm.weights["W_i"]}
    layers = (*spec.layers[:3], LayerSpec("last", lstm.layer, weights))
    report = Model(replace(spec, layers=layers), "numpy").verify(spec.cases)
    causes = (
        Cause(
            "gates_permuted", "last", {"order": HOSTILE[1]}, 1.0, True, f"Exchange {HOSTILE[0]}."
        ),
        Cause("scaling", None, {"factor": 1.25, "of": ["a", 2]}, 0.5, False, "Divide by 1.25."),
    )
    facts = ("it grows over the steps", HOSTILE[2])
    diagnosis = Diagnosis(causes, facts, "last", ("lstm", "add", "last"), report)
    return replace(
        report, diagnose=lambda: diagnosis, proof="stated", stated=(HOSTILE[0], "rnn -> last")
    )


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


def test_a_page_of_parity(held: ParityReport) -> None:
    page = check(render(held))
    headings = [text for _, text in page.headings]
    assert headings[0] == "Parity held"
    assert {"Numbers by output", "Differences by output", "The model", "Cases"} < set(headings)
    assert not {"What explains the difference", "The first layer that differs"} & set(headings)
    assert page.count["figure"] == 2 * 3 + 1  # three for each output, and the graph
    assert page.count["figcaption"] == 2 * 3
    assert page.count["svg"] == 1 + page.count["figure"]  # the sign beside the heading
    assert "structure proven" in page.text
    assert "2 cases, 2 of 2 outputs in parity" in page.text
    (largest,) = [f"{o.max_abs:.2e}" for o in held.outputs if o.output == "last"]
    assert largest in page.text
    assert held.backend in page.text
    assert np.__version__ in page.text
    assert "steps 9 <i>" in page.text  # what the case is for


def test_a_page_of_a_failure(failed: ParityReport) -> None:
    page = check(render(failed))
    headings = [text for _, text in page.headings]
    assert headings[:4] == [
        "Parity failed", "What explains the difference", "Gates permuted in last✓ proven",
        "Scalingnot proven",
    ]  # fmt: skip
    assert f"What to change: Exchange {HOSTILE[0]}." in page.text
    assert "explains 50 % of the squared difference" in page.text
    assert "it grows over the steps" in page.text
    assert "structure stated" in page.text
    assert "rnn -> last" in page.text
    states = re.findall(r"(✓ agrees|✗ differs first|– not compared|– after it)", page.text)
    assert states == ["✓ agrees", "– not compared", "✓ agrees", "✗ differs first"]
    assert "✗ last: differs first" in page.text  # in the graph
    assert "✗ failed" in page.text


def test_whatever_a_model_is_called_is_text(failed: ParityReport) -> None:
    page = check(render(failed))
    for text in (*HOSTILE[:3], HOSTILE_LAYER):
        assert text in page.text
    assert "\u202e" not in render(failed)  # it would turn the text behind it around
    assert r"turned \u202e around" in page.text


def test_a_page_of_what_was_stated(held: ParityReport) -> None:
    for proof, title in (("stated", "what is stated"), ("assumed", "assumed")):
        page = check(render(replace(held, proof=proof)))
        assert title in page.headings[0][1]
        assert f"structure {proof}" in page.text
        assert "Parity held" not in page.text


def test_a_page_without_a_known_cause_or_a_report(failed: ParityReport) -> None:
    page = check(render(failed, Diagnosis((), ("the first step agrees",))))
    assert "No known mistake explains the difference" in page.text
    assert "the first step agrees" in page.text
    assert failed.diagnosis is not None
    page = check(render(None, replace(failed.diagnosis, report=None)))
    assert page.headings[0][1] == "Diagnosis"
    assert "Gates permuted" in page.text


def test_outputs_that_another_program_computed() -> None:
    model = Model(recorded(two_headed()), "numpy")
    x = model.spec.cases[0].inputs
    y = model.predict(x)
    agrees = npylstm.diagnose(model, x, y)
    assert agrees.report is not None
    page = check(render(agrees.report, agrees))
    assert page.headings[0][1] == "Parity held"
    assert "No known mistake" not in page.text
    lstm = model.spec["lstm"]
    swapped = replace(lstm, weights={**lstm.weights, "U_i": lstm.weights["U_f"], "U_f": lstm.weights["U_i"]})  # fmt: skip
    spec = replace(model.spec, layers=(swapped, *model.spec.layers[1:]))
    inner = Model(replace(spec, outputs=("lstm", "add", "last"), cases=()), "numpy").predict(x)
    known = {"lstm": inner.pop("lstm")}
    other = npylstm.diagnose(model, x, inner, activations=known)
    page = check(render(other.report, other))
    assert re.findall(r"(✓ agrees|✗ differs first|– not compared|– after it)", page.text) == [
        "✗ differs first", "– after it", "– after it", "– after it"
    ]  # fmt: skip
    other = npylstm.diagnose(model, x, {**y, "last": 3 * y["last"] + 1})
    page = check(render(other.report, other))
    assert page.headings[1][1] == "What explains the difference"
    assert page.headings[2][1].startswith("Scaling")
    assert "the other program" in page.text


def test_written_files(failed: ParityReport, tmp_path: Path) -> None:
    diagnosis = failed.diagnosis
    assert diagnosis is not None
    failed.to_html(tmp_path / "r.html")
    diagnosis.to_html(tmp_path / "d.htm")
    for name in ("r.html", "d.htm"):
        check((tmp_path / name).read_text(encoding="utf-8"))
    with pytest.raises(NpylstmError, match=r"m\.npz: expected a page ending in \.html or \.htm"):
        failed.to_html(tmp_path / "m.npz")


def report_of(*comparisons: Comparison) -> ParityReport:
    return ParityReport(
        summarise(comparisons), len(comparisons), "torch 2.0", "numpy", comparisons=comparisons
    )


def compared(ours: np.ndarray, framework: np.ndarray, name: str = "y", case: int = 0) -> Comparison:
    exact = ours.astype(np.float64)
    return Comparison(name, case, framework, ours, exact, (exact,))


ODD: dict[str, Callable[[], ParityReport]] = {
    "equal": lambda: report_of(compared(np.ones((2, 3), "f4"), np.ones((2, 3), "f4"))),
    "zeros": lambda: report_of(compared(np.zeros((2, 3), "f4"), np.zeros((2, 3), "f4"))),
    "empty": lambda: report_of(compared(np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4"))),
    "empty beside filled": lambda: report_of(
        compared(np.zeros((2, 0, 3), "f4"), np.zeros((2, 0, 3), "f4")),
        compared(np.ones((2, 4, 3), "f4"), np.ones((2, 4, 3), "f4"), case=1),
    ),
    "no outputs": lambda: report_of(),
    "one axis": lambda: report_of(compared(np.arange(5, dtype="f4"), np.arange(5, dtype="f4"))),
    "one value": lambda: report_of(compared(np.ones((1, 1), "f4"), np.zeros((1, 1), "f4"))),
    "infinities": lambda: report_of(
        compared(np.float32([[np.inf, -np.inf, np.nan, 1]]), np.float32([[np.inf, 1, 1, 1]]))
    ),
    "nothing finite": lambda: report_of(
        compared(np.full((2, 3, 1), np.nan, "f4"), np.full((2, 3, 1), np.inf, "f4"))
    ),
    "huge": lambda: report_of(
        compared(np.array([[1.7e308, -1.7e308]]), np.array([[-1.7e308, 1.7e308]]))
    ),
    "tiny": lambda: report_of(compared(np.full((2, 2), 5e-324), np.zeros((2, 2)))),
    "nearly constant": lambda: report_of(
        compared(np.full((3, 2), 1e6, "f4"), np.full((3, 2), 1e6 + 0.1, "f4"))
    ),
    "four axes": lambda: report_of(compared(np.ones((2, 5, 3, 2)), np.ones((2, 5, 3, 2)) + 1e-3)),
    "no such numbers": lambda: ParityReport((), 0, "", ""),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ODD)
def test_odd_numbers_are_drawn(kind: str) -> None:
    report = ODD[kind]()
    page = check(render(report))
    assert page.headings[0][1] == ("Parity held" if report.passed else "Parity failed")
    if kind == "infinities":
        assert "Left out: 3 values where a side is not finite" in page.text
        assert "∞" in page.text


def test_a_large_page_stays_small_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for k in range(40):
        y = rng.normal(size=(4, 600, 8)).astype("f4")
        parts.append(
            compared(y, y + np.float32(1e-7) * rng.normal(size=y.shape).astype("f4"), f"y{k}")
        )
    parts[7].framework[3, 599, 7] += 1.0
    report = report_of(*parts)
    texts = [re.sub("Written by.*UTC", "", render(report)) for _ in range(2)]
    assert texts[0] == texts[1]
    page = check(texts[0])
    assert "16 outputs" in page.text  # that have no pictures
    named = re.findall(r"<summary><h3><code>(\w+)</code>", texts[0])
    assert named[0] == "y7"  # the worst comes first
    assert len(named) == 24


def test_what_is_drawn_is_what_was_compared() -> None:
    """All values, the worst of many, and every difference in its bin."""
    rng = np.random.default_rng(1)
    ours = rng.normal(size=(2, 30, 4)).astype("f4")
    few = compared(ours, ours + np.float32(1e-8))
    text = render(report_of(few))
    (dots,) = re.findall(r'class="values dots" d="([^"]*)"', text)
    assert dots.count("h0") == ours.size
    many = rng.normal(size=(8, 500, 4)).astype("f4")
    other = many.copy()
    other[5, 123, 2] += 0.5
    text = render(report_of(compared(many, other)))
    (cross,) = re.findall(r'class="failed" d="([^"]*)"', text)
    assert cross.count("m0-6") == 1
    assert "1 value right of the line" in text
    assert f"Sizes of all {many.size:,} differences" in text
    zeros = np.zeros((1, 2), "f4")
    at_the_limit = compared(zeros, zeros + 8 * np.finfo("f4").eps)
    assert at_the_limit.difference.max() == at_the_limit.tolerance
    assert "right of the line" not in render(report_of(at_the_limit))


def test_shares_of_the_tolerance_are_counted_where_they_belong() -> None:
    rng = np.random.default_rng(2)
    ours = rng.normal(size=(3, 40)).astype("f8")
    sizes = 10.0 ** rng.uniform(-22, -10, ours.shape) * rng.choice([0, 1], ours.shape)
    part = compared(ours, ours + sizes)
    counts, edges = evidence.histogram([part])
    ratios = np.abs(part.framework - part.ours) / part.tolerances
    expected = [np.sum(ratios < 1e-5)] + [
        np.sum((ratios > 10**a) & (ratios <= 10**b)) for a, b in itertools.pairwise(edges)
    ]
    assert counts.tolist() == expected
    assert counts.sum() == ours.size
    (line,) = evidence.by_step([part], 1)
    np.testing.assert_allclose(line.largest, ratios.max(axis=0))
    np.testing.assert_allclose(line.rms, np.sqrt((ratios**2).mean(axis=0)))


@pytest.mark.parametrize("seed", range(8))
def test_boxes_do_not_overlap_and_edges_point_downwards(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    pairs = {
        (int(rng.integers(0, b)), b) for b in range(1, count) for _ in range(rng.integers(0, 3))
    }
    edges = sorted(pairs)
    widths = rng.uniform(60, 200, count).tolist()
    found = layout(widths, edges)
    for a in range(count):
        for b in range(a):
            if found.ranks[a] == found.ranks[b]:
                assert abs(found.centres[a] - found.centres[b]) >= (widths[a] + widths[b]) / 2
    assert min(c - w / 2 for c, w in zip(found.centres, widths, strict=True)) >= -1e-9
    assert max(c + w / 2 for c, w in zip(found.centres, widths, strict=True)) <= found.width + 1e-9
    for (a, b), route in zip(edges, found.routes, strict=True):
        assert [rank for _, rank in route] == list(range(found.ranks[a], found.ranks[b] + 1))
        assert route[0] == (found.centres[a], found.ranks[a])
        assert route[-1] == (found.centres[b], found.ranks[b])


def test_graphs() -> None:
    def draw(spec: ModelSpec) -> str:
        text = render(replace(report_of(), spec=spec))
        check(text)
        return text[text.index('<svg class="graph"') :].partition("</svg>")[0]

    text = draw(two_headed())
    # x to the LSTM and to the sum, three more between layers, two to the outputs.
    assert text.count('class="edge"') == 7
    assert text.count('class="call"') == 4
    thirty = make_chain(*[Dense(3, 3) for _ in range(30)])
    assert draw(thirty).count("<g ") == 32
    hundred = make_chain(*[Dense(3, 3) for _ in range(100)])
    assert "100 layers" in draw(hundred)
    rng = np.random.default_rng(0)
    layers = [make_layer(f"d{k}", Dense(3, 3), rng) for k in range(120)]
    edges = [Edge.call(layer, "x" if k < 3 else f"d{k // 3}") for k, layer in enumerate(layers)]
    outputs = tuple(f"d{k}" for k in range(80, 120))
    bush = ModelSpec(tuple(layers), tuple(edges), (TensorSpec("x", ("batch", 3)),), outputs)
    text = draw(bush)
    assert 3 <= text.count("<g ") <= 40
    assert "39 outputs" in text  # the fortieth is less deep


def test_notebooks_show_short_forms(held: ParityReport, failed: ParityReport) -> None:
    model = Model(two_headed(), "numpy")
    texts = [x._repr_html_() for x in (held, failed, model, model.spec)]
    pages = [Page(text) for text in texts]
    for page in pages:
        assert set(page.count) <= SAFE
        assert all({*a} <= {"style"} for _, a in page.elements)
        assert not any("position" in a.get("style", "") for _, a in page.elements)
    assert "✓ parity held: 2 recorded cases" in pages[0].text
    assert "✗ parity FAILED: output 'last'" in pages[1].text
    assert f"gates_permuted in last (order {HOSTILE[1]}): proven. Exchange" in pages[1].text
    count = 4 * (3 * 6 + 6 * 6 + 6) + (6 * 3 + 3) + 4 * (3 * 4 + 4 * 4 + 4)
    assert f"{HOSTILE[0]}: {count} parameters, float32, numpy back end" in pages[2].text
    assert HOSTILE_LAYER in pages[3].text
    assert max(map(len, texts)) < 10_000


# ---------------------------------------------------------------------------------- in a browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--allow-file-access-from-files", "--dump-dom",
)  # fmt: skip

# Looks at the page in a frame of a phone's width: what runs over, and which texts are cut off.
PHONE = """<!DOCTYPE html><html><body><iframe src="PAGE" width="360" height="800"></iframe><pre>
</pre><script>addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, cut = [];
  for (const detail of page.querySelectorAll("details")) detail.open = true;
  for (const svg of page.querySelectorAll("svg")) {
    const outer = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const inner = text.getBoundingClientRect();
      if (inner.left < outer.left - 1 || inner.right > outer.right + 1 ||
          inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1) cut.push(text.textContent);
    }
  }
  const root = page.documentElement;
  document.querySelector("pre").textContent = JSON.stringify(
    {scroll: root.scrollWidth, client: root.clientWidth, cut: cut});
})</script></body></html>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[str, list[str]]]:
    """Open a page in Chromium; returns its DOM and what the console says."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")

    def browse(path: Path) -> tuple[str, list[str]]:
        profile = tmp_path_factory.mktemp("chromium")
        command = [found, *FLAGS, f"--user-data-dir={profile}", path.resolve().as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return result.stdout, [t for t in result.stderr.splitlines() if "CONSOLE" in t]

    return browse


def test_a_browser_shows_the_page(
    failed: ParityReport, tmp_path: Path, browse: Callable[[Path], tuple[str, list[str]]]
) -> None:
    path = tmp_path / "report.html"
    failed.to_html(path)
    dom, console = browse(path)
    assert console == []
    seen, written = Page(dom), Page(path.read_text(encoding="utf-8"))
    # What the browser made of it is what was meant: no element moved, none added.
    assert seen.count == written.count
    assert seen.headings == written.headings
    assert seen.count["script"] == 0
    assert seen.count["svg"] == 8
    assert not {"href", "src", "srcset", "data"} & {key for _, a in seen.elements for key in a}

    phone = tmp_path / "phone.html"
    phone.write_text(PHONE.replace("PAGE", path.name), encoding="utf-8")
    dom, console = browse(phone)
    assert console == []
    measured = json.loads(dom.partition("<pre>")[2].partition("</pre>")[0])
    assert 300 < measured["client"] <= 360
    assert measured["scroll"] == measured["client"]
    assert measured["cut"] == []


def test_that_the_browser_would_complain(
    tmp_path: Path, browse: Callable[[Path], tuple[str, list[str]]]
) -> None:
    """An image or a script in the page would be blocked, and that be said."""
    report = report_of()
    intruder = "<img src='x.png'><script>document.body.id = 'ran'</script></main>"
    path = tmp_path / "bad.html"
    path.write_text(render(report).replace("</main>", intruder), encoding="utf-8")
    dom, console = browse(path)
    assert len(console) == 2
    assert "Content Security Policy" in console[0]
    assert "<body>" in dom
