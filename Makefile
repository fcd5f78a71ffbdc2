# `make book` and `make test` need Python (3.11 or later) and make; everything else is installed
# into .venv. Another Python: `make book PYTHON=/path/to/python`.

VENV ?= .venv
PROFILE ?= quick
PORT ?= 8000
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help book full student instructor slides records bench test serve clean constraints

help: ## List these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

book: $(VENV)/.installed-book ## Execute what is stale and render the book into _build/html
	@$(BIN)/python -m book render --profile $(PROFILE)

full: ## The same with the profile `full`: more seeds, longer training
	@$(MAKE) --no-print-directory book PROFILE=full

student: $(VENV)/.installed-book ## The pages without any solution, into _build/student
	@$(BIN)/python -m book render --profile $(PROFILE) --audience student

instructor: $(VENV)/.installed-book ## The pages with solutions and the key, into _build/instructor
	@$(BIN)/python -m book render --profile $(PROFILE) --audience instructor

slides: book ## Three lectures from the rendered pages, into _build/slides
	@$(BIN)/python -m book slides --profile $(PROFILE)

records: book ## Keep the measured results of PROFILE, with their provenance, in results/
	@mkdir -p results/$(PROFILE)
	@cp -v _executed/$(PROFILE)/records/*.json results/$(PROFILE)/

bench: $(VENV)/.installed-book ## Measure identification, loading, training: ratios, memory; half an hour, 6 GB of disk
	@$(BIN)/python -m benchmarks.parity
	@$(BIN)/python -m benchmarks.identification --large
	@$(BIN)/python -m benchmarks.indices
	@$(BIN)/python -m benchmarks.training
	@$(BIN)/python -m benchmarks.resilience

test: $(VENV)/.installed-test ## Lint, and run every test, the rendered book's included
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python -m tests.house
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb
	OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n auto

serve: ## Show the rendered book on http://localhost:8000 (PORT=...)
	@test -f _build/html/index.html || { echo "Nothing is rendered yet: make book"; exit 1; }
	@echo "The book: http://localhost:$(PORT) (Ctrl-C ends)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

clean: ## Remove the rendered book and the executed notebooks (.venv stays)
	rm -rf _build _executed

constraints: $(VENV)/.installed-test ## Rewrite constraints.txt from what .venv holds
	$(PIP) freeze --all --exclude-editable --exclude pip > constraints.txt

# A Python that is named but does not run (a shim without its version) is passed over.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "Python 3.11 or later is needed: install it, or name it: make PYTHON=/path/to/python"; \
	exit 1

$(VENV)/.installed-book: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the book's dependencies into $(VENV): a few minutes the first time"
	$(PIP) install -e '.[book]' -c constraints.txt
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the book's, the tests', the benchmark's and the cluster's dependencies into $(VENV): a few minutes the first time"
	$(PIP) install -e '.[book,test,benchmark,cluster]' -c constraints.txt
	@touch $@ $(VENV)/.installed-book
