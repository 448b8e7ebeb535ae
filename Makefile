# The two commands: `make book` and `make test`. Both make .venv first; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/stamp
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
export TQDM_DISABLE := 1
# Documents and tests use what is installed here, nothing of the caller's.
unexport PYTHONPATH

.PHONY: book test colab browser serve execute lint weights benchmark requirements publish-address

book: $(ENVIRONMENT) browser
	$(BIN)/python tools/verification.py
	$(BIN)/python tools/glance.py
	$(BIN)/python tools/build_book.py
	$(BIN)/python tools/print_book.py

test: $(ENVIRONMENT) browser
	$(BIN)/python -m pytest --nbval

# The chapters beside the versions that Colab has, installed as Colab installs the package: strict, as in `make test`.
colab:
	$(PYTHON) -m venv --clear .venv-colab
	.venv-colab/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-colab.txt
	.venv-colab/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	rm -rf build
	.venv-colab/bin/python -m pytest --nbval -o addopts="--nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with=tests/nbval.cfg" notebooks

# A stamp newer than requirements.txt and pyproject.toml says that nothing has to be installed again.
$(ENVIRONMENT): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 book" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { sh tools/system_packages.sh python3-venv && $(PYTHON) -m venv --clear .venv; }
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# Where no browser can be had, the book has no PDF and the browser tests are skipped; both say so. In CI those tests fail.
browser: $(ENVIRONMENT)
	@$(BIN)/python tools/chromium.py

serve: book
	$(BIN)/python -m http.server --directory _build/html 8000

execute: $(ENVIRONMENT)
	$(BIN)/python tools/execute.py $(NOTEBOOKS)

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The judge and the autoencoder come first: the other recipes use what they make.
RECIPES := $(notdir $(basename $(wildcard src/ditbook/weights/*.toml)))
FIRST := scene-reader autoencoder-shapes
weights: $(ENVIRONMENT)
	for name in $(FIRST) $(filter-out $(FIRST),$(RECIPES)); do \
	  env -u TQDM_DISABLE $(BIN)/ditbook train $$name --out src/ditbook/weights/$$name.safetensors || exit 1; \
	done

benchmark: $(ENVIRONMENT)
	$(BIN)/python benchmarks/dit_step.py
	$(BIN)/python benchmarks/dit_gpu.py

publish-address: $(ENVIRONMENT)
	$(BIN)/python tools/publish_address.py "$(URL)"

# Resolve requirements.in anew, in an environment of its own, into exact pins.
requirements:
	$(PYTHON) -m venv --clear build/resolve
	build/resolve/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.in
	{ echo "# Exact pins of everything that builds and tests the book, resolved from requirements.in by \`make requirements\`."; \
	  build/resolve/bin/python -m pip freeze --all --exclude pip | sed 's/+cpu$$//' | sort -f; } > build/requirements.txt
	mv build/requirements.txt requirements.txt
	rm -rf build/resolve
