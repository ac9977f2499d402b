"""Plant mistakes in models, ask ``npylstm.diagnose`` for their causes, and score the answers.

python tests/planted/matrix.py                         two forms of every kind in every architecture
python tests/planted/matrix.py --variants 0 --further  every form, also those that are not promised
python tests/planted/matrix.py --only "lstm_sequence/0/bias_missing/biases in lstm"
python tests/planted/matrix.py --alarms 1000 --pairs 200 --unknown 200 --write docs/diagnosis-matrix.md
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import npylstm
from planted.building import Architecture
from planted.judge import Trial, Verdict, judge, trial
from planted.mistakes import TABLE, Planting, plantings
from planted.models import BUILDERS, draw
from planted.oracle import outputs_of
from planted.program import Outputs
from planted.tables import Score, text


def diagnose(a: Architecture, outputs: Outputs, backend: str = "numpy") -> tuple[Any, float]:
    """Ask for a diagnosis as a user does; return it and the seconds that it took."""
    model, data = npylstm.Model(a.spec, backend=backend), a.data
    inputs: Any = [data.inputs[t.name] for t in a.spec.inputs]
    theirs: Any = [outputs[name] for name in a.spec.outputs]
    start = time.perf_counter()
    answer = npylstm.diagnose(
        model,
        inputs[0] if len(inputs) == 1 else inputs,
        theirs[0] if len(theirs) == 1 else theirs,
        state=data.state,
        lengths=data.lengths,
        mask=data.mask,
    )
    return answer, time.perf_counter() - start


def forms(
    a: Architecture, kinds: Sequence[str], variants: int, further: bool
) -> Iterator[Planting]:
    """Draw some forms of every kind that fit the architecture; all of them where variants is 0."""
    for kind in kinds:
        known = [p for p in plantings(kind, a.run, a.seed) if p.listed or further]
        rng = np.random.default_rng([a.seed, zlib.crc32(f"{a.name} {kind}".encode())])
        order = rng.permutation(len(known))
        yield from (known[k] for k in order[: variants or None])


def trials(
    architectures: Sequence[str],
    kinds: Sequence[str],
    seeds: Sequence[int],
    variants: int = 0,
    further: bool = False,
) -> Iterator[Trial]:
    """Plant mistakes in drawn models, as far as the outputs show them."""
    for seed in seeds:
        for name in architectures:
            a = draw(name, seed)
            made = (trial(a, planting) for planting in forms(a, kinds, variants, further))
            yield from (t for t in made if t is not None)


def drawn(kind: str, count: int, architectures: Sequence[str], first: int) -> Iterator[Trial]:
    """Draw ``count`` plantings of ``unknown`` or ``pair``, one for each model."""
    seed = first
    while count:
        for name in architectures:
            made = [*trials([name], [kind], [seed], 1, further=True)][:count]
            count -= len(made)
            yield from made
        seed += 1


def only(name: str) -> Trial:
    """Find a trial by its name."""
    architecture, seed, kind, variant = name.split("/", 3)
    a = draw(architecture, int(seed))
    found = [p for p in plantings(kind, a.run, a.seed) if p.variant == variant]
    made = trial(a, found[0]) if found else None
    if made is None:
        raise SystemExit(f"{name}: no such planting, or its outputs do not differ")
    return made


def ask(one: Trial, backend: str = "numpy") -> Verdict:
    """Diagnose a trial and score the answer."""
    return judge(one, *diagnose(one.architecture, one.outputs, backend))


def alarms(
    count: int, architectures: Sequence[str], first: int, backend: str
) -> Iterator[tuple[str, Any]]:
    """Draw correct models, computed in float32 in three orders of sums; yield each diagnosis."""
    for k in range(count):
        a = draw(architectures[k % len(architectures)], first + k // len(architectures))
        order = (k + k // len(architectures)) % 3
        yield f"{a.name}/{a.seed}/order {order}", diagnose(a, outputs_of(a.run, np.float32, order), backend)[0]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=[*BUILDERS], choices=[*BUILDERS])
    parser.add_argument("--kinds", nargs="*", default=[*TABLE], choices=[*TABLE])
    parser.add_argument("--count", type=int, default=1, help="models drawn of each architecture")
    parser.add_argument("--seed", type=int, default=0, help="of the first model")
    parser.add_argument("--variants", type=int, default=2, help="forms of each kind; 0: all")
    parser.add_argument("--further", action="store_true", help="forms that are not promised, too")
    parser.add_argument("--only", help="one planting by its name")
    parser.add_argument("--alarms", type=int, default=0, help="correct models to try")
    parser.add_argument("--pairs", type=int, default=0, help="models with two mistakes to try")
    parser.add_argument("--unknown", type=int, default=0, help="unknown mistakes to try")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--write", type=Path, help="where to write the tables, in Markdown")
    options = parser.parse_args(argv)
    if options.only:
        return _show(only(options.only), options.backend)
    seeds = range(options.seed, options.seed + options.count)
    score = Score()
    chosen = options.architectures, options.kinds, seeds, options.variants, options.further
    groups = {
        "planted": trials(*chosen),
        "unknown": drawn("unknown", options.unknown, options.architectures, options.seed),
        "pair": drawn("pair", options.pairs, options.architectures, options.seed),
    }
    for group, made in groups.items():
        for one in made:
            score.add(group, ask(one, options.backend))
            _progress(score)
    for name, answer in alarms(options.alarms, options.architectures, options.seed, options.backend):  # fmt: skip
        score.correct += 1
        score.alarms.extend(f"{name}: {c}" for c in answer.causes)
        _progress(score)
    print(file=sys.stderr)
    print(text(score))
    if options.write:
        options.write.write_text(text(score, markdown=True), encoding="utf-8")
    return 0 if score.good else 1


def _progress(score: Score) -> None:
    print(f"\r{len(score.verdicts)} planted, {score.correct} correct", end="", file=sys.stderr)


def _show(one: Trial, backend: str) -> int:
    answer, seconds = diagnose(one.architecture, one.outputs, backend)
    verdict = judge(one, answer, seconds)
    print(f"planted: {one.name}, to be named in {one.planting.layers or 'any layer'}")
    print(f"{answer}\nanswer: {verdict.answer}, {seconds:.2f} s")
    for problem in (*verdict.false_proofs, *verdict.broken):
        print(f"problem: {problem}")
    return 0 if verdict.answer in ("first", "same") and not verdict.false_proofs else 1


if __name__ == "__main__":
    sys.exit(main())
