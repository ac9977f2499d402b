"""The command line. ``python -m npylstm`` is the same as ``npylstm``.

Results are printed to stdout, progress and warnings to stderr. Exit status: 0 success, 1 parity
failed, 2 bad input or usage (one line on stderr).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from npylstm import __version__
from npylstm.cli.comparing import diagnose, verify
from npylstm.cli.computing import predict, trace
from npylstm.cli.converting import convert
from npylstm.cli.describing import info
from npylstm.cli.examining import doctor
from npylstm.cli.printing import print_json
from npylstm.cli.quantizing import quantize
from npylstm.cli.timing import bench, warmup
from npylstm.errors import NpylstmError, ParityError
from npylstm.printable import printable
from npylstm.runtime.engines import BACKENDS

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int]


class UsageError(NpylstmError):
    """Wrong arguments; ``command`` is the one that they are wrong for, or empty."""

    def __init__(self, message: str, command: str) -> None:
        self.command = command
        super().__init__(message)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise the error, with a hint to ``--help``."""
        command = self.prog.partition(" ")[2]
        raise UsageError(f"{message}; see {self.prog} --help", command)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="npylstm",
        description="Trained recurrent networks, run with NumPy alone.",
        epilog="In place of a file of arrays, - is standard input or output.",
    )
    parser.add_argument("--version", action="version", version=f"npylstm {__version__}")
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Command, help: str) -> argparse.ArgumentParser:
        sub = group.add_parser(run.__name__, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        return sub

    def backend(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--backend", choices=BACKENDS, default="auto", help="default: auto")

    def functions(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--custom", metavar="NAME=module:function", action="append",
            help="a NumPy function for a layer that is code, by its name or class",
        )  # fmt: skip

    def source_options(sub: argparse.ArgumentParser) -> None:
        functions(sub)
        sub.add_argument(
            "--architecture", metavar="JSON",
            help="weights-only files of Keras and TensorFlow: the text of model.to_json()",
        )  # fmt: skip
        sub.add_argument(
            "--layers", metavar="CHAIN",
            help="weights-only files: how the layers are joined, 'rnn -> last -> fc'",
        )  # fmt: skip
        order = sub.add_mutually_exclusive_group()
        order.add_argument(
            "--batch-first", action="store_true", default=None,
            help="PyTorch state_dicts: inputs are (batch, steps, features)",
        )  # fmt: skip
        order.add_argument(
            "--sequence-first", action="store_false", dest="batch_first",
            help="PyTorch state_dicts: inputs are (steps, batch, features)",
        )  # fmt: skip
        sub.add_argument(
            "--dequantize", action="store_true", default=None,
            help="PyTorch: convert modules of 8 bits with dequantized weights; outputs differ",
        )  # fmt: skip
        sub.add_argument(
            "--key", metavar="NAME", help="checkpoints: where in it the state_dict or the model is"
        )
        sub.add_argument(
            "--allow-unused", metavar="NAME", nargs="+",
            help="tensors of the source that may be left over (PyTorch: or modules)",
        )  # fmt: skip
        sub.add_argument(
            "--example", metavar="X.npy", help="TorchScript: an input to trace it with"
        )
        sub.add_argument(
            "--set", metavar="NAME=VALUE", action="append", dest="constants",
            help="ONNX: a fixed value for an input, as sr=16000, or for a size, as batch_size=1",
        )  # fmt: skip

    sub = command(convert, "Convert a trained model to .npz.")
    sub.add_argument("source", metavar="SOURCE", help="the framework's file or folder")
    sub.add_argument("output", metavar="MODEL.npz", help="the file to write")
    sub.add_argument(
        "--record", metavar="N", type=_count, default=None,
        help="cases to record with the framework; by default 8 where it is installed, 0 for none",
    )  # fmt: skip
    sub.add_argument(
        "--free-steps", action="store_true",
        help="let inputs have any number of steps, where the source fixes it",
    )  # fmt: skip
    sub.add_argument("--check-input", metavar="X.npy", help="inputs that the author used")
    sub.add_argument(
        "--check-output", metavar="Y.npy", help="what the author's own program gave for them"
    )
    sub.add_argument(
        "--force", action="store_true",
        help="write although the check failed, or over a file that is no npylstm model",
    )  # fmt: skip
    source_options(sub)

    sub = command(info, "Describe a model, converted or not.")
    sub.add_argument("model", metavar="MODEL.npz|SOURCE")
    sub.add_argument(
        "--proof", action="store_true",
        help="replay the recorded cases and print a page to file: hashes, grounds, numbers",
    )  # fmt: skip
    source_options(sub)

    sub = command(verify, "Replay the recorded cases, or run the source in its framework.")
    sub.add_argument("model", metavar="MODEL.npz")
    sub.add_argument("--against", metavar="SOURCE", help="run this source on fresh inputs instead")
    sub.add_argument("--cases", metavar="N", type=_positive, default=None, help="fresh cases")
    sub.add_argument(
        "--seed",
        metavar="N",
        type=_count,
        default=None,
        help="of the fresh inputs; default: random",
    )
    sub.add_argument("--plot", metavar="PARITY.png", help="draw the differences")
    sub.add_argument("--html", metavar="REPORT.html", help="write the report as one HTML page")
    source_options(sub)
    backend(sub)

    sub = command(diagnose, "Say why another program's outputs differ from the model's.")
    functions(sub)
    sub.add_argument("model", metavar="MODEL.npz")
    sub.add_argument("--input", metavar="X.npy", required=True, help=".npy, .npz or .csv")
    sub.add_argument(
        "--output", metavar="Y.npy", required=True, help="what the other program gave for them"
    )
    sub.add_argument("--state", metavar="S.npz", help="the initial state, keys LAYER/h, LAYER/c")
    sub.add_argument("--lengths", metavar="L.npy", help="how many steps of each sequence count")
    sub.add_argument("--html", metavar="REPORT.html", help="write the report as one HTML page")
    backend(sub)

    sub = command(quantize, "Write a model with weights in fewer bits, and measure what it costs.")
    sub.add_argument("model", metavar="IN.npz", help="a model with float32 weights")
    sub.add_argument("output", metavar="OUT.npz", help="the file to write")
    sub.add_argument(
        "--type", choices=("int8", "bfloat16", "int16"), default="int8", help="default: int8"
    )
    sub.add_argument("--layers", metavar="NAME", nargs="+", help="only these; * is allowed")
    sub.add_argument(
        "--keep", metavar="NAME", nargs="+", default=[], help="layers that stay; * is allowed"
    )
    sub.add_argument("--force", action="store_true", help="replace a file that is no model")
    functions(sub)
    backend(sub)

    sub = command(predict, "Compute outputs for inputs in a file.")
    sub.add_argument("model", metavar="MODEL.npz")
    sub.add_argument("--input", metavar="X.npy", required=True, help=".npy, .npz, .csv or .wav")
    sub.add_argument(
        "-o", "--output", metavar="Y.npy", help=".npy, .npz, .csv or .wav; default: stdout"
    )
    sub.add_argument("--batch-size", metavar="N", type=_positive, default=None)
    sub.add_argument("--threads", metavar="N", type=_positive, default=1)
    sub.add_argument(
        "--block", metavar="N", type=_positive, default=None, help="audio: frames of a block"
    )
    sub.add_argument(
        "--control", metavar="NAME=0.7", action="append", help="audio: the setting of a knob"
    )
    sub.add_argument(
        "--resample", choices=("soxr",), default=None,
        help="audio: resample a file whose sample rate is not the model's",
    )  # fmt: skip
    functions(sub)
    backend(sub)

    sub = command(trace, "Show what happens inside the recurrent layers.")
    sub.add_argument("model", metavar="MODEL.npz")
    sub.add_argument("--input", metavar="X.npy", required=True, help=".npy, .npz or .csv")
    sub.add_argument(
        "-o", "--output", metavar="GATES.png", required=True, help=".png, .svg or .npz"
    )
    sub.add_argument("--sample", metavar="K", type=_count, default=0, help="which row; default: 0")
    functions(sub)

    sub = command(bench, "Measure the time of a call on this machine.")
    sub.add_argument("model", metavar="MODEL.npz")
    sub.add_argument("--batch", metavar="N", type=_positive, nargs="+", default=[1, 32])
    sub.add_argument(
        "--steps", metavar="N", type=_positive, help="where they are free; default: 50"
    )
    sub.add_argument(
        "--seconds", metavar="N", type=_seconds, help="for each row of the table; default: 0.5"
    )
    sub.add_argument(
        "--stream", action="store_true",
        help="time the steps of a session, one by one: median, 99 %%, 99.9 %% and the worst",
    )  # fmt: skip
    sub.add_argument(
        "--calls", metavar="N", type=_positive, help="with --stream: steps; default: 1000000"
    )
    functions(sub)

    sub = command(warmup, "Compile what a model needs, into Numba's cache.")
    functions(sub)
    sub.add_argument("model", metavar="MODEL.npz", nargs="+")

    sub = command(doctor, "Say which back end computes here and why, and check every kernel.")
    sub.add_argument("model", metavar="MODEL.npz", nargs="?", help="examine this model, too")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    given = sys.argv[1:] if arguments is None else [*arguments]
    as_json = "--json" in given
    try:
        if any("\0" in argument for argument in given):
            raise UsageError("arguments must not contain the character NUL", "")
        options = _parser().parse_args(given)
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except ParityError as error:
        return _complain(error, str(error), as_json, status=1)
    except NpylstmError as error:
        return _complain(error, str(error), as_json)
    except BrokenPipeError:
        # The reader has closed the pipe; suppress Python's error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _complain(error, what, as_json)
    except MemoryError as error:
        return _complain(error, f"there is not enough memory: {error}", as_json)
    except KeyboardInterrupt:
        return 130


_MAX_MESSAGE = 3500


def _complain(error: Exception, message: str, as_json: bool, status: int = 2) -> int:
    """Print one line, without control characters, which names from files may contain."""
    line = printable(" ".join(message.split()))
    if as_json:
        print_json({"error": line, "kind": type(error).__name__})
        return status
    if len(line) > _MAX_MESSAGE:
        line = f"{line[:_MAX_MESSAGE]} ... ({len(line)} characters)"
    command = error.command if isinstance(error, UsageError) else ""
    print(f"{f'npylstm {command}'.rstrip()}: error: {line}", file=sys.stderr)
    return status
