"""Choose cases from large tables: every value of every parameter, not every combination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest
from sampling import checksum

FEW = 4  # values of a parameter: a framework, a way to save, a back end


def covering(cases: Mapping[str, Iterable[object]]) -> set[str]:
    """Return the names of a few cases that have every value that any of the given ones has.

    Greedy; ties are broken by a checksum of the name and the seed, which mixes the values of the
    parameters.

    >>> sorted(covering({"a": {1, 3}, "b": {2, 3}, "c": {1, 4}, "d": {2, 4}}))
    ['a', 'd']
    """
    values = {name: set(own) for name, own in cases.items()}
    order = sorted(values, key=checksum)
    left = set().union(*values.values())
    chosen = set()
    for most in range(max(map(len, values.values()), default=0), 0, -1):
        for name in order:
            new = left & values[name]
            if len(new) >= most:
                chosen.add(name)
                left -= new
    return chosen


def drawn(cases: Mapping[str, Iterable[tuple[str, object]]], one_in: int) -> set[str]:
    """Return one in so many cases, drawn by the seed, with every value of parameters that have few.

    >>> cases = {str(n): [("n", n), ("even", n % 2 == 0)] for n in range(30)}
    >>> len(drawn(cases, 3)) in (10, 11)
    True
    """
    values = {name: set(own) for name, own in cases.items()}
    known: dict[str, set[object]] = defaultdict(set)
    for parameter, value in set[tuple[str, object]]().union(*values.values()):
        known[parameter].add(value)
    few = {parameter for parameter, all_values in known.items() if len(all_values) <= FEW}
    chosen = set(sorted(values, key=checksum)[: -(-len(values) // one_in)])
    seen = set().union(*(values[name] for name in chosen))
    missing = {name: {v for v in own - seen if v[0] in few} for name, own in values.items()}
    return chosen | covering({name: own for name, own in missing.items() if own})


def sample(items: Iterable[pytest.Item]) -> set[str]:
    """Return the ids of the tests to run.

    Of each table with several parameters a covering choice; of random draws (a parameter ``seed``)
    one in eight; of tables that are marked ``one_in`` fewer rows; no tests that are marked
    ``exhaustive``.
    """
    tables: dict[str, dict[str, set[tuple[str, object]]]] = defaultdict(dict)
    rates: dict[str, int] = {}
    kept = set()
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if item.get_closest_marker("exhaustive"):
            continue
        if [*parameters] == ["seed"] and checksum(item.nodeid) % 8:
            continue
        table, marker = item.nodeid.partition("[")[0], item.get_closest_marker("one_in")
        if marker is not None:
            rates[table] = marker.args[0]
        if len(parameters) < 2 and marker is None:
            kept.add(item.nodeid)
        else:
            tables[table][item.nodeid] = {(name, repr(v)) for name, v in parameters.items()}
    for table, cases in tables.items():
        chosen = covering(cases)
        if table in rates:
            chosen = drawn({name: cases[name] for name in chosen}, rates[table])
        kept |= chosen
    return kept
