"""The language of ``--layers``, which connects the layers of a weights-only file.

A chain consists of layer names and of words for operations between them, separated by arrows.
Options that the arrays do not determine are in parentheses: ``"rnn -> last -> fc(softmax)"``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from npylstm import FormatError
from npylstm.printable import printable

__all__ = ["Step", "command_of", "parse_steps", "plausible_values"]


@dataclass(frozen=True)
class Step:
    """One link of the chain: a word with its options."""

    word: str
    values: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        options = [*self.values, *(f"{k}={v}" for k, v in self.options.items())]
        return f"{self.word}({', '.join(options)})" if options else self.word


_STEP = re.compile(r"\s*(?P<word>[^\s()]+)\s*(?:\((?P<args>[^()]*)\))?\s*")


def parse_steps(text: str) -> list[Step]:
    """Parse ``"rnn(relu) -> last -> fc"``.

    Raises
    ------
    FormatError
        If a part cannot be parsed.
    """
    steps = []
    for part in text.split("->"):
        match = _STEP.fullmatch(part)
        if match is None:
            raise FormatError(f"layers: expected a name or name(options), got {part.strip()!r:.80}")
        given = [a.strip() for a in (match["args"] or "").split(",") if a.strip()]
        options = dict(a.replace(" ", "").split("=", 1) for a in given if "=" in a)
        steps.append(Step(match["word"], tuple(a for a in given if "=" not in a), options))
    return steps


# Defaults of one framework or another.
_OTHERS = {
    "eps": ("1e-3", "1e-5", "1e-6", "1e-12"), "epsilon": ("1e-3", "1e-5", "1e-6", "1e-12"),
    "mask_value": ("0", "-1", "-99"), "negative_slope": ("0.01", "0.1", "0.2", "0.3"),
    "alpha": ("0.01", "0.1", "0.2", "0.3", "1"),
}  # fmt: skip


def plausible_values(name: str, value: str) -> Iterator[str]:
    """Yield other plausible values of an option, such as the neighbours of an integer."""
    if name in _OTHERS:
        same = _number(value)
        yield from (other for other in _OTHERS[name] if _number(other) != same)
    elif value.isdigit():
        yield str(int(value) + 1)
        if int(value) > 0:
            yield str(int(value) - 1)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# Characters that a shell does not change between double quotes.
_PLAIN = re.compile(r"[\w .,:=()>+-]*", re.ASCII)


def command_of(source: str, chain: str, flags: str = "") -> str:
    """Return the command that converts a source with a chain; empty if it needs escapes."""
    text = f'"{chain}"' if _PLAIN.fullmatch(chain) else shlex.quote(chain)
    command = f"npylstm convert {shlex.quote(source)} MODEL.npz --layers {text}{flags}"
    return command if printable(command) == command else ""
