# Everything a newcomer needs: `make demo`, `make test`. Needs Python ≥ 3.11, pip and make; touches nothing outside
# this folder and COREA_HOME (default: your cache folder).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-train test-integrations train-smoke check format lock bench docs clean

help:
	@echo "make demo    fetch two small models and watch them answer 12 real questions together"
	@echo "make test    run the tests"
	@echo "make test-train  run the tests of training, with torch in an environment of its own"
	@echo "make test-integrations  run the tests of the integrations, with the frameworks in an environment of their own"
	@echo "make train-smoke  train SmolLM2-135M on small sums, from rollouts to a GGUF adapter"
	@echo "make check   lint, types, import rules, lock file"
	@echo "make bench   measure anew (20 minutes) and write the figures into the pages"
	@echo "make docs    build the documentation as a site, with mkdocs in an environment of its own"
	@echo "make lock    renew the pinned dependencies"

# --without-pip: Debian ships venv without ensurepip, and the system's pip can install into the environment as well.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: .venv/installed
	@$(BIN)/corea demo

test: .venv/installed
	$(BIN)/python -m pytest $(ARGS)

# torch is half a gigabyte even without CUDA, so training has an environment of its own.
.venv-train/installed: requirements-train.txt pyproject.toml
	$(PYTHON) -m venv --clear --without-pip .venv-train
	$(PYTHON) -m pip --python .venv-train/bin/python install --quiet --disable-pip-version-check --no-deps -r requirements-train.txt
	$(PYTHON) -m pip --python .venv-train/bin/python install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

test-train: .venv-train/installed
	OMP_NUM_THREADS=1 .venv-train/bin/python -m pytest tests/train $(ARGS)

# Six frameworks together ask for more, and for other versions, than COREA does: they have an environment of their own.
.venv-integrations/installed: requirements-integrations.txt pyproject.toml
	$(PYTHON) -m venv --clear --without-pip .venv-integrations
	$(PYTHON) -m pip --python .venv-integrations/bin/python install --quiet --disable-pip-version-check --no-deps -r requirements-integrations.txt
	$(PYTHON) -m pip --python .venv-integrations/bin/python install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

test-integrations: .venv-integrations/installed
	.venv-integrations/bin/python -m pytest tests/integrations $(ARGS)

train-smoke: .venv-train/installed
	.venv-train/bin/corea models pull smollm2-135m
	.venv-train/bin/corea train examples/train-smoke.toml

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/installed
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --group dev --extra evaluate --extra hub --extra otel --extra postgres --extra providers --extra serve --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --extra otel --extra postgres --extra serve --constraint requirements.lock \
		--no-emit-package xllamacpp --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" --output-file deploy/requirements.txt
	echo hatchling | $(BIN)/uv pip compile - --quiet --constraint requirements.lock --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" --output-file deploy/requirements-build.txt

bench: .venv/installed
	$(BIN)/python -m bench $(ARGS)

# The site's tools are no part of COREA: they have an environment of their own.
.venv-docs/installed: requirements-docs.txt
	$(PYTHON) -m venv --clear --without-pip .venv-docs
	$(PYTHON) -m pip --python .venv-docs/bin/python install --quiet --disable-pip-version-check --no-deps -r requirements-docs.txt
	@touch $@

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "build/site/index.html; to search in it: python3 -m http.server --directory build/site"

clean:
	rm -rf .venv .venv-train .venv-integrations .venv-docs .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
