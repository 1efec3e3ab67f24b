# make probe   explain the run that goes out of memory half-way, on a simulated T4; needs make and python3, no GPU
# make test    lint, types, tests
# make pictures   those of the README, of the report as it is now; needs chromium
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

# 1 is a light page, 0 a dark one
pictures: $(VENV)/.installed
	$(RUN) run_probe.py --max-length 2048 --samples 4000 --svg reports/pictures/report.svg --html $(VENV)/report.html
	for scheme in 1:light 0:dark; do \
		chromium --headless --no-sandbox --hide-scrollbars --window-size=1440,1100 \
			--blink-settings=preferredColorScheme=$${scheme%:*} \
			--screenshot=reports/pictures/html_$${scheme#*:}.png "file://$(CURDIR)/$(VENV)/report.html"; \
	done

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
