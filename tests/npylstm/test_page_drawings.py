"""What the report for people draws: numbers, tolerances, and graphs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builders import make_chain, make_layer
from pages import check, report_of, two_headed

from npylstm import ModelSpec
from npylstm.ops.dense import Dense
from npylstm.parity import Comparison, ParityReport
from npylstm.parity.page import evidence, render
from npylstm.parity.page.layout import layout
from npylstm.spec import Edge, TensorSpec


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
