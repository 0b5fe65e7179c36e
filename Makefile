# normlab: one course, three ways to use it. `make` alone lists what there is.

# The Python that .venv is made with.
PYTHON ?= python3
# Read when .venv is made: cpu (the small build of PyTorch) or cuda (PyPI's build; gigabytes on Linux).
TORCH ?= cpu
# Where `make bench` runs: cpu or cuda.
DEVICE ?= cpu

# What `make grade` grades, and where: the folder with submitted/ and the gradebook. OPTIONS goes to python -m grading.
ASSIGNMENT ?=
COURSE ?= .
OPTIONS ?=

BIN := .venv/bin
VENV := .venv/complete

# Hundreds of processes import the same modules: compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
# Where several processes share the cores, a thread that waits must not keep one busy, as OpenBLAS's do.
book epub test prove: export OMP_WAIT_POLICY := passive
book epub test prove: export OPENBLAS_NUM_THREADS := 1

# Tools that others call by name (nbgrader calls alembic) come from .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help book epub test prove bench lab notebooks lint course-secret grade grade-demo clean again

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s%s\n", $$1, $$2}' Makefile

# -- The environment -------------------------------------------------------------------------------------------------

$(VENV): requirements.txt pyproject.toml
	@sh tools/venv.sh "$(PYTHON)" "$(TORCH)"

# What the file should say. In a checkout that was moved or copied, or where the Python went away, it says otherwise.
expected := $(shell pwd -P) Python $(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(shell cat $(VENV) 2>/dev/null),$(expected))
$(VENV): again
endif

# -- Read ------------------------------------------------------------------------------------------------------------

book: _build/pages ## execute every chapter and write the site to _build/html
	@# Sphinx warns about a page only when it reads it: after a failed build it reads all again, or the next would pass.
	@test -e _build/passed || rm -rf _build/.doctrees
	@rm -f _build/passed
	@echo "Building the site. The first time every chapter is executed; later only what changed."
	@$(BIN)/jupyter-book build . --quiet -W -n --keep-going >/dev/null
	@touch _build/passed
	@$(BIN)/python -c 'import pathlib; print("The site is ready. Open", pathlib.Path("_build/html/index.html").resolve().as_uri())'

epub: _build/pages ## the same as one file for readers of books
	@# Everything that lies there is packed.
	@rm -rf _build/epub
	@$(BIN)/jupyter-book build . --builder custom --custom-builder epub --quiet -W --keep-going >/dev/null
	@echo "The book is ready: $$(ls _build/epub/*.epub)"

# Results of cells are kept by the cells' text alone: when code that pages import changes, they run again.
_build/results: $(VENV) $(shell find normlab book \( -name '*.py' -o -name '*.toml' -o -name '*.json' -o -path '*/cuda_cpp/*.*' \) -not -path '*/_ext/*' -not -name '*.pyc')
	@rm -rf _build/.jupyter_cache _build/.doctrees
	@mkdir -p _build && touch $@

# Sphinx does not notice changes of what stands beside the pages: then it reads all of them again.
_build/pages: _build/results _config.yml $(wildcard _toc.yml book/references.bib) $(shell find solutions -name '*.py') $(shell find book/_ext -type f -not -name '*.pyc')
	@rm -rf _build/.doctrees
	@touch $@

# -- Do --------------------------------------------------------------------------------------------------------------

lab: $(VENV) ## copy missing exercise notebooks to work/ and open JupyterLab there
	@$(BIN)/python tools/lab.py

# -- Grade -----------------------------------------------------------------------------------------------------------

course-secret: $(VENV) ## write the secret of a class, to the file that NORMLAB_SECRET_FILE names
	@$(BIN)/python -m grading.secret

grade: $(VENV) ## grade ASSIGNMENT in the course's folder COURSE (this one), in parallel and in sandboxes
	@test -n "$(ASSIGNMENT)" || { echo "Say which: make grade ASSIGNMENT=softmax COURSE=/path/to/course" >&2; exit 2; }
	@cd "$(COURSE)" && PYTHONPATH="$(CURDIR)" "$(CURDIR)/$(BIN)/python" -B -m grading "$(ASSIGNMENT)" $(OPTIONS)

grade-demo: $(VENV) ## 30 made-up submissions, from release to feedback, in about a minute
	@$(BIN)/python -B -m grading.demo

# -- Prove and maintain ----------------------------------------------------------------------------------------------

test: book ## everything that proves the project
	@# Two at a time, each file in one process; more would disturb the tests of time limits and threads. In the order of
	@# tests/conftest.py, the longest file first: by itself pytest would begin with the file of most tests.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

prove: book ## the long proofs: every answer we know; 1,000 submissions beside stock nbgrader; 20 kills; every combination
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m exhaustive
	@$(BIN)/python -B -m grading.demo --all
	@$(BIN)/python -B -m grading.parity
	@$(BIN)/python -B -m grading.speed 1000
	@NORMLAB_KILLS=20 $(BIN)/python -B -m pytest -q tests/test_faults.py -k killed

bench: $(VENV) ## time normlab beside PyTorch on this machine, some minutes; DEVICE=cuda: on its GPU
	@$(BIN)/python -m normlab.bench --device $(DEVICE)

notebooks: $(VENV) ## write both notebook trees anew from solutions/*/*.py
	@$(BIN)/python tools/make_notebooks.py

lint: $(VENV) ## ruff: style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

clean: ## remove what was built; .venv and work/ stay
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .coverage htmlcov
