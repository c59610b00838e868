# Needs Python 3.11 to 3.13 and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/quickstart
export MPLBACKEND := Agg

.PHONY: quickstart test test-slow lint bench scores schema clean

quickstart: .venv/.installed  ## make a dataset, train on it, evaluate, plot
	$(BIN)/rlalgo collect configs/collect/hopper.yaml --replace
	$(BIN)/rlalgo train configs/quickstart.yaml --out $(RUN) --replace
	$(BIN)/rlalgo report $(RUN)

test: .venv/.dev lint  ## the default tests, with ruff and mypy
	$(BIN)/python -m pytest -n auto

test-slow: .venv/.dev  ## minutes: learning results and whole commands
	$(BIN)/python -m pytest -n auto -m slow --timeout 1800

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.dev .venv-d3rlpy/.installed  ## speed, side by side with Hugging Face's model and d3rlpy
	D3RLPY_PYTHON=.venv-d3rlpy/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks \
		--benchmark-enable --benchmark-only --timeout 1200 --benchmark-json .benchmarks.json -p no:cacheprovider
	$(BIN)/python tests/benchmarks/ratios.py .benchmarks.json

scores: .venv/.installed .venv-d3rlpy/.installed  ## final scores, side by side with d3rlpy: hours
	$(BIN)/rlalgo sweep configs/suites/results.yaml --only td3_bc --only iql --only cql
	PYTHONPATH=. $(BIN)/python tests/benchmarks/d3rlpy_scores.py .venv-d3rlpy/bin/python

schema: .venv/.dev  ## the JSON schemas that the YAML files' modeline names; with the plugins of this repository
	for kind in train:schema collect:collect/schema suite:suites/schema; do \
		RLALGO_PLUGINS= PYTHONPATH=plugins/rlalgo-cnn:plugins/rlalgo-atari:plugins/rlalgo-trackers:plugins/rlalgo-paper \
			$(BIN)/rlalgo schema $${kind%:*} $(addprefix --plugin ,rlalgo_cnn rlalgo_atari rlalgo_trackers rlalgo_paper) \
			--out configs/$${kind#*:}.json || exit 1; done

clean:
	rm -rf .venv .venv-d3rlpy build dist *.egg-info runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks.json

.venv/.venv: Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

.venv/.installed: .venv/.venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

.venv-d3rlpy/.installed: Makefile
	$(PYTHON) -m venv .venv-d3rlpy
	.venv-d3rlpy/bin/pip install --quiet torch==2.13.0 d3rlpy==2.8.1
	touch $@

.venv/.dev: .venv/.installed pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
