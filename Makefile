# `make` lists the commands. Each sets up .venv first, which takes minutes once and nothing afterwards.
# README.md shows the same commands for those without make.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/installed
LOCK := requirements.lock

.DEFAULT_GOAL := help
.PHONY: help book notebooks pdf test test-all lint links lab course clean repository lock data

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{printf "%-18s %s\n", $$1, $$2}'

book: $(READY)  ## run every page and write the site; CHAPTER=ch01_basics runs that one only
	@$(RUN) -m tools.book --chapter "$(CHAPTER)"

test: $(READY)  ## run everything that CI runs on every change
	@$(RUN) -m tools.check

test-all: $(READY)  ## the same, and the tests that are rare and slow
	@$(RUN) -m tools.check --all

notebooks: $(READY)  ## write the notebooks that Colab opens into _build/notebooks; CHAPTER=ch01_basics that one only
	@$(RUN) -m tools.notebooks --chapter "$(CHAPTER)"

pdf: $(READY)  ## print the core pages into _build/where-networks-look.pdf; builds the site where it is not fresh
	@$(RUN) -m tools.pdf

lint: $(READY)  ## read the code without running it: lint, format, imports, types, notebooks stripped
	@$(RUN) -m tools.check --read

links: $(READY)  ## whether what the book links to elsewhere is still there (needs a network, and the last `make book`)
	@$(RUN) -m tools.book --links

lab: $(READY)  ## open the chapters in JupyterLab
	@$(RUN) -m jupyterlab --notebook-dir=book

course: $(READY)  ## write the assignments that students get into your own folder: PACK=DIR
	@$(RUN) -m tools.course release "$(or $(PACK),$(error say where your private folder is: make course PACK=DIR))"

clean:  ## remove what was built (.venv stays)
	rm -rf _build build dist .pytest_cache .ruff_cache
	find book helpers tests tools _ext -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

repository: $(READY)  ## set the repository's address everywhere: URL=https://github.com/OWNER/NAME
	@$(RUN) -m tools.repository "$(URL)"

data: $(READY)  ## import MNIST and Tiny ImageNet from a folder of archives: DIR=FOLDER
	@$(RUN) -m helpers.data import "$(DIR)"

lock: $(READY)  ## choose new versions for requirements.lock (needs uv: pip install uv)
	@uv --version || { echo "make lock needs uv: $(PYTHON) -m pip install uv"; exit 1; }
	@head -n 2 $(LOCK) > $(LOCK).new
	uv pip compile pyproject.toml --extra book --extra test --extra course --universal --python-version 3.10 \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade >> $(LOCK).new
	@mv $(LOCK).new $(LOCK)

# The stamp is newer than both lists when everything in them is installed.
$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	@# A .venv of another Python, or a broken one, is made anew: pip would mix the two.
	@[ "$$($(RUN) -c 'import sys, pip; print(sys.version)' 2>&1)" = "$$($(PYTHON) -c 'import sys; print(sys.version)')" ] || \
	  $(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -r $(LOCK)
	$(RUN) -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
