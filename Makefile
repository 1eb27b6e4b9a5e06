# GNU make. Every target brings .venv/ up to date first, so each works on a fresh machine.
#
#   PYTHON=python3.12          the interpreter .venv is built with (default: the first that fits)
#   TORCH=torch==2.13.0+cpu    another build of torch than the pinned one; remembered
#   DEMO_FLAGS=...             passed to `apr demo`
#   TEST_FLAGS=...             passed to pytest
#   KILLS_FLAGS=...            passed to tests.kills.run, such as --seed 1 --random 500
#   FUZZ_FLAGS=...             passed to tests.fuzz.run, such as --seed 1 --executions 10000000

export PYTHON TORCH
VENV := .venv/bin
CHECKS := check-lint check-format check-types check-layers

.PHONY: help setup demo test test-slow check $(CHECKS) bench failures fuzz kills llama-cpp transformers-4 clean

help:
	@echo "make demo    train a small model on your interpreter's sources: no network once set up"
	@echo "make test    run the tests: some five minutes on two cores"
	@echo "make test-slow  those that run whole commands, demos, ranks and kills: as long again"
	@echo "make check   lint, formatting, types, import layers"
	@echo "make setup   only build .venv/, with the development tools"
	@echo "make bench   time and memory; numbers, no verdict"
	@echo "make failures  plant every fault and write docs/failures.md: minutes"
	@echo "make fuzz    a million damaged files to every reader: six to fifteen minutes on two cores"
	@echo "make kills   a training run killed 240 times, at every write point, and one of two ranks: six to fifteen minutes"
	@echo "make llama-cpp  compare with a real llama.cpp; builds it first, which takes minutes"
	@echo "make transformers-4  the parity tests against transformers 4"
	@echo "make clean   remove .venv/, .venv-*/ and what the tools wrote"

setup:
	@tools/setup.sh dev

demo:
	@tools/setup.sh runtime
	@$(VENV)/python -m apr demo $(DEMO_FLAGS)
	@echo 'apr is $(VENV)/apr; to call it by its name: . $(VENV)/activate' >&2

test: setup
	@$(VENV)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow" $(TEST_FLAGS)

test-slow: setup
	@$(VENV)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m slow $(TEST_FLAGS)

check: $(CHECKS)

check-lint: setup
	@$(VENV)/python -m ruff check

check-format: setup
	@$(VENV)/python -m ruff format --check

check-types: setup
	@$(VENV)/python -m pyright

check-layers: setup
	@$(VENV)/lint-imports

# What apr is compared with and must not share an environment with.
.venv-peers/bin/inspect_data:
	@echo "bench: installing datatrove into .venv-peers (some 200 MB on disk)" >&2
	@$(VENV)/python -m venv .venv-peers
	@.venv-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

# In the same packages as apr, so that both compute with the same torch.
.venv-litgpt/bin/litgpt:
	@echo "bench: installing litgpt into .venv-litgpt (some 50 MB on disk)" >&2
	@$(VENV)/python -m venv .venv-litgpt
	@$(VENV)/python -c "import site; print('import site; site.addsitedir(%r)' % site.getsitepackages()[0])" \
		> "$$(.venv-litgpt/bin/python -c 'import site; print(site.getsitepackages()[0])')/beside.pth"
	@.venv-litgpt/bin/pip install --quiet --disable-pip-version-check --no-deps \
		-r benchmarks/litgpt.txt

bench: setup .venv-peers/bin/inspect_data .venv-litgpt/bin/litgpt
	@$(VENV)/python benchmarks/startup.py
	@OMP_NUM_THREADS=1 $(VENV)/python benchmarks/quantization.py
	@$(VENV)/python benchmarks/near_duplicates.py
	@$(VENV)/python benchmarks/encode.py
	@$(VENV)/python benchmarks/convert.py
	@.venv-litgpt/bin/python benchmarks/train_throughput.py
	@$(VENV)/python benchmarks/ranks.py
	@$(VENV)/python benchmarks/checkpoint.py
	@$(VENV)/python benchmarks/end_to_end.py

# Nothing is written when a test fails, or one that exists did not run.
failures: setup
	@$(VENV)/python -m pytest -n auto --maxprocesses 8 --dist worksteal tests \
		--failures build/failures.json $(TEST_FLAGS)
	@PYTHONPATH=. $(VENV)/python -m tests.failure_page build/failures.json

# Ends with 5 and the bytes in fuzz-findings/ when a reader crashes, hangs or takes too much memory.
fuzz: setup
	@PYTHONPATH=. $(VENV)/python -m tests.fuzz.run --executions 1000000 $(FUZZ_FLAGS)

# Ends with 5 when a run that went on was not the run that nobody disturbed.
kills: setup
	@PYTHONPATH=. $(VENV)/python -m tests.kills.run $(KILLS_FLAGS)

# The reader that exported files are for. LLAMA_CPP=PYTHON names one that has it already.
LLAMA_CPP ?= .venv-llama/bin/python

.venv-llama/bin/python:
	@echo "llama-cpp: building llama.cpp into .venv-llama (minutes; needs a C++ compiler)" >&2
	@$(VENV)/python -m venv .venv-llama.part
	@CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF" \
		.venv-llama.part/bin/pip install --quiet --disable-pip-version-check \
		-r tests/llama_cpp/requirements.txt
	@mv .venv-llama.part .venv-llama

llama-cpp: setup $(LLAMA_CPP)
	@PYTHONPATH=. $(VENV)/python tests/llama_cpp/compare.py $(LLAMA_CPP)
	@PYTHONPATH=. $(VENV)/python tests/llama_cpp/greedy.py $(LLAMA_CPP)

# The parity tests against the transformers of before 5, which needs an environment of its own.
.venv-transformers4/bin/pytest:
	@echo "transformers-4: installing transformers 4 into .venv-transformers4 (some 1 GB on disk)" >&2
	@$(VENV)/python -m venv .venv-transformers4
	@.venv-transformers4/bin/pip install --quiet --disable-pip-version-check \
		-r tests/transformers_4/requirements.txt -e .

transformers-4: setup .venv-transformers4/bin/pytest
	@.venv-transformers4/bin/python -m pytest -p no:cacheprovider tests/parity \
		--ignore tests/parity/test_fast_encoder.py $(TEST_FLAGS)

clean:
	rm -rf .venv .venv-peers .venv-litgpt .venv-transformers4 .venv-llama .venv-llama.part build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache fuzz-findings
	find src tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/apr.egg-info
