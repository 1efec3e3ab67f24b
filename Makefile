# make probe   explain the run that goes out of memory half-way, on a simulated T4; needs make and python3, no GPU
# make test    lint, types, tests
# make pictures  the pictures in the README, anew; needs Chromium
#
# All set up .venv first, and again only when pyproject.toml or constraints.txt have changed.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip --quiet --disable-pip-version-check install --no-compile --constraint constraints.txt

.PHONY: probe test pictures

probe: $(VENV)/.installed
	$(RUN) run_probe.py --max-length 2048 --samples 4000

test: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest --quiet --numprocesses 2 --dist loadfile --no-loadscope-reorder

pictures: $(VENV)/.installed
	$(RUN) -m tests.pictures

# torch on its own first: the largest download by far, so that an interrupted one costs least.
$(VENV)/.installed: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing into $(VENV), once; this takes some minutes."
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@mkdir -p $(VENV)/checkout && ln -sfn ../.. $(VENV)/checkout/memory_harness
	@touch $@

# A half-made environment would pass for a whole one, so a failure removes it.
$(RUN):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is %d.%d; choose with: make PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
