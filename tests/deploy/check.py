"""Run the bundled models with the npylstm that is installed here, and print what happened as one line of JSON.

    python check.py FOLDER_OF_MODELS [--emulated]

Every model must agree with its recorded outputs, and models with one input must give the same when they get it step by
step. The first answer must not need much more memory than `import numpy`, except where an emulator's memory is counted.
Otherwise the exit status is 1. Files that are opened for writing are listed. Only NumPy and npylstm are needed.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

MODELS = (
    "sine_keras/sine", "damped_sine_keras/damped_sine", "sine_torch/sine",
    "damped_sine_torch/damped_sine", "seq2seq_sin_cos_keras/seq2seq", "stateful_sine_tfjs/sine",
)  # fmt: skip
STEPS = 500  # timed, of the first model
EXTRA = 10  # MB that the first answer may use beyond `import numpy`

started = time.perf_counter()
written = []


def note_writes(event, arguments):
    """Remember what is written to disk, whichever Python code does it."""
    if event == "open":
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull:
            written.append(str(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "os.remove", "tempfile.mkstemp", "tempfile.mkdtemp"):
        written.append(f"{event} {arguments[0]}")


def milliseconds():
    return round(1000 * (time.perf_counter() - started), 1)


def peak():
    """Return the most memory that this process has used since it was started, in MB."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def steps_agree(model, x):
    """Compare the outputs of a call to those of a stream that gets the input step by step."""
    session = model.session(batch_size=len(x))
    stepped = [session.step(x[:, k]) for k in range(x.shape[1])]
    whole = model.predict(x)
    last = whole[:, -1] if whole.ndim == 3 else whole
    return bool(np.allclose(stepped[-1], last, rtol=0, atol=1e-6))


def step_time(model, x):
    """Return the microseconds of a step."""
    session = model.session(batch_size=len(x))
    begin = time.perf_counter()
    for _ in range(STEPS):
        session.step(x[:, 0])
    return round(1e6 * (time.perf_counter() - begin) / STEPS, 2)


sys.addaudithook(note_writes)
import numpy as np  # noqa: E402

found = {"import numpy, ms": milliseconds(), "numpy, MB": peak()}
import npylstm  # noqa: E402
from npylstm.native.shipped import shipped_library  # noqa: E402

folder = Path(sys.argv[1])
models = {name: npylstm.load(folder / f"{name}.npz") for name in MODELS[:1]}
first = models[MODELS[0]]
x = np.asarray(next(iter(first.spec.cases[0].inputs.values())), np.float32)
first.predict(x)
found |= {"first answer, ms": milliseconds(), "first answer, MB": peak()}
agree = {}
for name in MODELS:
    model = npylstm.load(folder / f"{name}.npz")
    agree[name] = model.verify().passed
    if len(model.spec.inputs) == 1:
        case = np.asarray(next(iter(model.spec.cases[0].inputs.values())), np.float32)
        agree[name] &= steps_agree(model, case)
found |= {
    "verified, ms": milliseconds(), "step, us": step_time(first, x),
    "machine": platform.machine(), "libc": "-".join(filter(None, platform.libc_ver())) or "musl",
    "python": platform.python_version(), "numpy": np.__version__,
    "npylstm": npylstm.__version__, "from": npylstm.__file__, "backend": first.backend,
    "level": getattr(shipped_library(), "level", None),
    "written": written, "agree": agree,
}  # fmt: skip
print(json.dumps(found))
if not all(agree.values()):
    sys.exit("a model does not agree with its recorded outputs, or its steps with a call")
extra = found["first answer, MB"] - found["numpy, MB"]
if "--emulated" not in sys.argv and extra > EXTRA:
    sys.exit(f"the first answer uses {extra:.1f} MB more than numpy, expected: at most {EXTRA} MB")
