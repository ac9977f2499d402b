"""Choose cases from large tables: every value of every parameter, not every combination."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest


def covering(cases: Mapping[str, Iterable[object]]) -> set[str]:
    """Return the names of a few cases that have every value that any of the given ones has.

    Greedy; ties are broken by a checksum of the name, which mixes the values of the parameters, and
    always in the same way.

    >>> sorted(covering({"a": {1, 3}, "b": {2, 3}, "c": {1, 4}, "d": {2, 4}}))
    ['a', 'd']
    """
    values = {name: set(own) for name, own in cases.items()}
    order = sorted(values, key=lambda name: zlib.crc32(name.encode()))
    left = set().union(*values.values())
    chosen = set()
    for most in range(max(map(len, values.values()), default=0), 0, -1):
        for name in order:
            new = left & values[name]
            if len(new) >= most:
                chosen.add(name)
                left -= new
    return chosen


def sample(items: Iterable[pytest.Item]) -> set[str]:
    """Return the ids of the tests to run.

    Of each table with several parameters a covering choice; of random draws (a parameter ``seed``)
    one in eight; no tests that are marked ``exhaustive``.
    """
    tables: dict[str, dict[str, set[object]]] = defaultdict(dict)
    kept = set()
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if item.get_closest_marker("exhaustive"):
            continue
        if [*parameters] == ["seed"] and zlib.crc32(item.nodeid.encode()) % 8:
            continue
        if len(parameters) < 2:
            kept.add(item.nodeid)
        else:
            values = {(name, repr(value)) for name, value in parameters.items()}
            tables[item.nodeid.partition("[")[0]][item.nodeid] = values
    for cases in tables.values():
        kept |= covering(cases)
    return kept
