"""The choice of cases that `make test` runs: it may leave out combinations, never a value."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from covering import covering, sample


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
