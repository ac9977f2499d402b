"""The choice of cases that `make test` runs.

It leaves out combinations, never a value, except that of slow tables it draws other rows every day.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import sampling
from covering import covering, drawn, sample


def table(test: str, /, **values: list[object]) -> list[Any]:
    """Tests as pytest collects them: every combination of some values."""
    return [
        SimpleNamespace(
            nodeid=f"{test}[{number}]",
            callspec=SimpleNamespace(params=dict(zip(values, combination, strict=True))),
            get_closest_marker=lambda marker: None,
        )
        for number, combination in enumerate(itertools.product(*values.values()))
    ]


def test_every_value_is_kept_and_combinations_are_left_out() -> None:
    items = table("t", way=["h5", "keras", "json"], size=[*range(20)], backend=["numpy", "numba"])
    kept = sample(items)
    chosen = [item.callspec.params for item in items if item.nodeid in kept]
    assert {p["size"] for p in chosen} == {*range(20)}
    assert {p["way"] for p in chosen} == {"h5", "keras", "json"}
    assert {p["backend"] for p in chosen} == {"numpy", "numba"}
    assert 20 <= len(chosen) <= 30


def test_tables_are_chosen_from_one_by_one() -> None:
    kept = sample([*table("a", x=[1, 2], y=[3, 4]), *table("b", x=[1, 2], y=[3, 4])])
    assert {name[0] for name in kept} == {"a", "b"}


def test_lists_and_single_tests_are_kept_whole() -> None:
    single = SimpleNamespace(nodeid="single", get_closest_marker=lambda marker: None)
    kept = sample([single, *table("list", name=[*"abcdefgh"])])  # type: ignore[list-item]
    assert len(kept) == 9


def test_draws_are_sampled_and_exhaustive_tests_left_out() -> None:
    assert 4 <= len(sample(table("draw", seed=[*range(100)]))) <= 25
    (long,) = table("long", name=["a"])
    long.get_closest_marker = lambda marker: marker == "exhaustive"
    assert sample([long]) == set()


def test_nothing_to_choose_from() -> None:
    assert covering({}) == set()


def marked(one_in: int, items: list[Any]) -> list[Any]:
    """The same tests, of a table that is marked ``one_in``."""
    for item in items:
        item.get_closest_marker = lambda name: (
            SimpleNamespace(args=(one_in,)) if name == "one_in" else None
        )
    return items


@pytest.mark.parametrize("others", [{}, {"way": ["h5", "keras", "json"]}], ids=["list", "table"])
def test_of_slow_rows_every_one_is_drawn_some_day(
    others: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = marked(3, table("t", name=[*range(30)], **others))
    ways, names = set(), set()
    for day in range(30):
        monkeypatch.setattr(sampling, "_seed", f"day {day}")
        kept = [item.callspec.params for item in items if item.nodeid in sample(items)]
        assert 10 <= len(kept) <= 20
        assert len({p.get("way") for p in kept}) == max(1, len(others.get("way", [])))
        names |= {p["name"] for p in kept}
        ways |= {(p["name"], p.get("way")) for p in kept}
    assert names == {*range(30)}
    assert len(ways) > 30 * len(others) * 2


def test_few_rows_are_still_some() -> None:
    assert len(drawn({"a": [("x", 1)], "b": [("x", 2)]}, 8)) == 2
    assert len(drawn({str(n): [("x", n)] for n in range(5)}, 8)) == 1
    assert drawn({}, 3) == set()


def test_one_of_several_in_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_seed", None)
    assert sampling.one_of("ab") == "ab"
    assert sampling.example_count(40) == 40
    chosen = set()
    for day in range(20):
        monkeypatch.setattr(sampling, "_seed", f"day {day}")
        chosen.add(sampling.one_of("ab"))
    assert chosen == {"a", "b"}
    assert sampling.example_count(40) == 10
    assert sampling.example_count(3) == 1


def test_the_seed_is_the_date_or_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_seed", None)
    monkeypatch.setenv(sampling.VARIABLE, "7")
    sampling.start()
    assert sampling.seed() == "7"
