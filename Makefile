# The two commands: `make book` and `make test`. Both make .venv first; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/stamp
MATHJAX := book/static/vendor/mathjax
export TQDM_DISABLE := 1

.PHONY: book test browser serve execute lint weights benchmark requirements verification publish-address

$(ENVIRONMENT): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(MATHJAX): $(ENVIRONMENT)
	$(BIN)/python tools/stage_mathjax.py $@

verification: $(ENVIRONMENT)
	$(BIN)/python tools/verification.py

book: $(ENVIRONMENT) $(MATHJAX)
	rm -rf _build
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	@echo "The book is built. Open file://$(CURDIR)/_build/html/index.html"

browser: $(ENVIRONMENT)
	sh tools/install_browser.sh

test: $(ENVIRONMENT) browser book
	$(BIN)/python -m pytest --nbval -q

serve: book
	$(BIN)/python -m http.server --directory _build/html 8000

execute: $(ENVIRONMENT)
	$(BIN)/python tools/execute.py $(NOTEBOOKS)

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

weights: $(ENVIRONMENT)
	env -u TQDM_DISABLE $(BIN)/python tools/train_weights.py

benchmark: $(ENVIRONMENT)
	$(BIN)/python benchmarks/dit_step.py

publish-address: $(ENVIRONMENT)
	$(BIN)/python tools/publish_address.py "$(URL)"

requirements:
	rm -rf build/resolve && $(PYTHON) -m venv build/resolve
	build/resolve/bin/pip install --quiet -r requirements.in
	(echo "# Exact pins of everything that builds and tests the book, made from requirements.in by \`make requirements\`."; \
	 build/resolve/bin/pip freeze | sed 's/+cpu$$//') > requirements.partial && mv requirements.partial requirements.txt
