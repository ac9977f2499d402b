# make native   compile the kernels for this machine, into the checkout
# make wheel    build wheels with compiled kernels for all platforms, into dist/
# make demo     convert a trained Keras model, run it, prove parity, draw (no framework needed)
# make test     install the frameworks and run the suite; of tables of cases, every value of every parameter,
#               of slow rows other ones every day; NPYLSTM_SAMPLE_SEED=date repeats a day's choice
# make test-all the same with every combination and every row
# make test-deploy   install the wheel of dist/ into other environments: read-only, PyInstaller, Lambda, ...
# make test-levels   the tests of the kernels with NumPy and the wheel alone, once for each level of x86-64
# make test-aarch64  a sample of them with the wheel for aarch64, run by qemu
# make test-musl     the same with the wheel for musl; make test-old-cpu: on a CPU without AVX2, imitated by qemu
# make test-numba-versions  the tests of the kernels with the oldest and the newest Numba of pyproject.toml
# make coverage the line coverage of make test
# make fuzz     thousands of random Keras models against Keras; MODELS=n SEED=n
# make diagnose-matrix   plant mistakes in models, diagnose them, write docs/diagnosis-matrix.md
# make mutate-models     change stored files, see that verify tells, write docs/mutations.md
# make mutate-source     edit the source in some forty ways, see that the tests fail
# make bench    compare the speed with torch, onnxruntime, openvino and TensorFlow
# make lint     ruff and mypy, as pinned for pre-commit
# make check    lint, and the tests that need no framework
# make models   train the bundled models again and convert them

PYTHON ?= python3
PIP = -m pip --disable-pip-version-check install --quiet

.PHONY: native wheel demo test test-all coverage fuzz diagnose-matrix mutate-models mutate-source bench lint check models clean

# Every process imports the frameworks, a gigabyte or so.
PARALLEL ?= -n auto --maxprocesses 4 --dist worksteal

MODELS ?= 2000
SEED ?= 1000

native: npylstm/native/kernels.json

npylstm/native/kernels.json: .venv-build/ready $(wildcard npylstm/kernels/*.py wheels/*.py) \
    npylstm/activations.py npylstm/integer_matrix.py npylstm/native/levels.py npylstm/native/digests.py
	.venv-build/bin/python -m wheels.library

# PLATFORMS: names of wheels/platforms.py; by default all.
wheel: .venv-build/ready
	.venv-build/bin/python -m wheels $(PLATFORMS)

demo: .venv-demo/ready
	.venv-demo/bin/python models/sine_keras/demo.py build/demo

test: .venv-test/ready tests/tfjs/ready native
	.venv-test/bin/python -m pytest $(PARALLEL) --sample

test-all: .venv-test/ready tests/tfjs/ready native
	.venv-test/bin/python -m pytest $(PARALLEL)

.PHONY: test-deploy test-levels test-aarch64 test-old-cpu test-musl

# Wheels with compiled kernels come from dist/ (make wheel); what cannot be run here says so.
test-deploy: .venv-test/ready
	.venv-test/bin/python -m pytest -n 0 -m deploy -rP tests/deploy

test-levels: .venv-test/ready
	.venv-test/bin/python tests/deploy/run.py x86_64 --levels v2 v3 v4 v4_vnni

# Each EVERYth test: qemu takes ten to twenty times as long.
EVERY ?= 15
test-aarch64: .venv-test/ready
	.venv-test/bin/python tests/deploy/run.py aarch64 --every $(EVERY)

test-old-cpu: .venv-test/ready
	.venv-test/bin/python tests/deploy/run.py x86-64-v2 --every $(EVERY)

test-musl: .venv-test/ready
	.venv-test/bin/python tests/deploy/run.py musl --every $(EVERY)

.PHONY: test-numba-versions
# Not the shipped kernels, and only what needs no framework.
test-numba-versions: .venv-numba-0.59/ready .venv-numba-0.68/ready
	for version in 0.59 0.68; do \
	  NPYLSTM_NATIVE=0 NPYLSTM_TEST_BACKEND=numba .venv-numba-$$version/bin/python -m pytest -q -n 2 --sample \
	    tests/npylstm/test_numba_library.py tests/npylstm/test_products.py tests/npylstm/test_activations.py \
	    tests/npylstm/test_lstm.py tests/npylstm/test_recurrent.py tests/npylstm/test_session*.py \
	    tests/npylstm/test_pool*.py tests/npylstm/test_doctor.py \
	    tests/npylstm/test_integer_products.py tests/npylstm/test_one_hot_ids.py || exit 1; \
	done

.venv-numba-%/ready: pyproject.toml
	$(PYTHON) -m venv .venv-numba-$*
	.venv-numba-$*/bin/python $(PIP) -e . 'numba==$*.*' pytest pytest-xdist hypothesis
	touch $@

coverage: .venv-test/ready tests/tfjs/ready native
	.venv-test/bin/coverage erase
	.venv-test/bin/coverage run -m pytest $(PARALLEL) --sample
	.venv-test/bin/coverage combine --quiet
	.venv-test/bin/coverage report

fuzz: .venv-test/ready
	NPYLSTM_RANDOM_CHAINS=$(MODELS) NPYLSTM_RANDOM_GRAPHS=$(MODELS) NPYLSTM_RANDOM_SEED=$(SEED) \
	.venv-test/bin/python -m pytest $(PARALLEL) -k "random_chain or test_random_graph" \
	tests/converters/test_keras_random_chains.py tests/converters/test_keras_random_graphs.py

diagnose-matrix: .venv-test/ready
	.venv-test/bin/python tests/planted/matrix.py --alarms 1000 --unknown 200 --pairs 200 \
	--write docs/diagnosis-matrix.md

mutate-models: .venv-test/ready
	.venv-test/bin/python tests/mutations/run.py --write docs/mutations.md

mutate-source: .venv-test/ready
	.venv-test/bin/python tests/mutations/source.py

bench: .venv-bench/ready
	.venv-bench/bin/python benchmarks/run.py

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

check: lint native
	.venv-test/bin/python -m pytest $(PARALLEL) --sample tests/npylstm

models: .venv-test/ready
	.venv-test/bin/python models/sine_keras/train.py
	.venv-test/bin/python models/damped_sine_keras/train.py
	.venv-test/bin/python models/sine_torch/train.py
	.venv-test/bin/python models/damped_sine_torch/train.py
	.venv-test/bin/python models/seq2seq_sin_cos_keras/train.py
	cd models/stateful_sine_tfjs && npm install && npm run train
	.venv-test/bin/python models/stateful_sine_tfjs/convert.py

clean:
	rm -rf .venv-demo .venv-test .venv-bench .venv-build .venv-numba-* build dist npylstm/native/kernels.* tests/tfjs/node_modules tests/tfjs/ready

.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python $(PIP) -e '.[all]'
	touch $@

# pip reads dependency groups from version 25.1 on.
.venv-test/ready: pyproject.toml
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python $(PIP) 'pip>=25.1'
	.venv-test/bin/python $(PIP) -e . --group dev
	touch $@

.venv-build/ready: pyproject.toml
	$(PYTHON) -m venv .venv-build
	.venv-build/bin/python $(PIP) 'pip>=25.1'
	.venv-build/bin/python $(PIP) --group build
	touch $@

.venv-bench/ready: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(PIP) 'pip>=25.1'
	.venv-bench/bin/python $(PIP) -e . --group bench
	touch $@

# TensorFlow.js for its parity tests, where there is Node; otherwise its recorded files serve.
tests/tfjs/ready: tests/tfjs/package.json
	if command -v npm > /dev/null; then cd tests/tfjs && npm install --silent --no-audit; fi
	touch $@
