"""Change stored files in every way that has a meaning, and see that ``verify`` tells.

python tests/mutations/run.py                        all models
python tests/mutations/run.py --models masked_mean   some of them
python tests/mutations/run.py --write docs/mutations.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import npylstm
from mutations.models import MODELS
from mutations.mutations import mutants
from mutations.scoring import Verdict, judge, markdown, text, unexplained


def judged(name: str) -> Iterator[Verdict]:
    """Store a model, and judge every mutation of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        npylstm.save(MODELS[name](), path)
        data = path.read_bytes()
    yield from judge(name, npylstm.load(data, backend="numpy"), mutants(data))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=[*MODELS])
    parser.add_argument("--write", type=Path, help="where to write the score, in Markdown")
    options = parser.parse_args(argv)
    verdicts: list[Verdict] = []
    for number, name in enumerate(options.models):
        print(f"\r{number} of {len(options.models)} models", end="", file=sys.stderr)
        verdicts += judged(name)
    print(file=sys.stderr)
    print(text(verdicts))
    if options.write:
        options.write.write_text(markdown(verdicts), encoding="utf-8")
    return 1 if unexplained(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
