"""The report for people: what the page holds, that nothing in it runs, how a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import HOSTILE, HOSTILE_LAYER, SAFE, Page, check, report_of, two_headed

import npylstm
from npylstm import Model, ModelSpec, NpylstmError
from npylstm.parity import ParityReport
from npylstm.parity.diagnosis import Cause, Diagnosis
from npylstm.parity.page import render
from npylstm.spec import Case, LayerSpec

RNG = np.random.default_rng(0)


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
