# SPDX-License-Identifier: GPL-2.0-or-later
# Everything runs in a virtual environment that the first target to need it makes.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SAMPLES = $(sort $(dir $(wildcard traces/samples/*/manifest.json)))

.PHONY: demo test test-all lab-test lint bench mutation recorder deb man notebook terminal clean

# The last three commands find something, as they should: exit status 1.
TWO = traces/samples/7.2-lz4-edge --revision mainline-7.2 --revision v14
FOUND = traces/found/7.1-iaa-window
demo: $(VENV)/.installed
	@echo '$$ zreplay replay --brief traces/samples/*/'
	@$(BIN)/zreplay replay --brief $(SAMPLES)
	@echo '$$ zreplay replay --brief $(FOUND)'
	@$(BIN)/zreplay replay --brief $(FOUND) || test $$? -eq 1
	@echo '$$ zreplay regress --brief $(TWO)'
	@$(BIN)/zreplay regress --brief $(TWO) || test $$? -eq 1
	@echo '$$ zreplay report $(TWO) -o demo-report.html'
	@$(BIN)/zreplay report $(TWO) -o demo-report.html > /dev/null || test $$? -eq 1
	@echo "Open demo-report.html in a browser: it needs no network."

# As many tests at a time as there are CPUs.
PARALLEL = -n logical --maxprocesses 8 --dist worksteal

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not lab"

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest $(PARALLEL) -m "not lab"

# Records these kernels in QEMU: apt install qemu-system-x86 busybox-static
LAB_KERNELS ?= 6.12 6.18 7.0 7.2 7.3
LAB_TESTS ?=
lab-test: $(VENV)/.installed
	ZREPLAY_LAB_KERNELS="$(LAB_KERNELS)" $(BIN)/python -m pytest -m lab -k "$(LAB_TESTS)"

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

# trace-cmd, where it is installed, is measured for comparison: apt install trace-cmd
bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/zreplay dev bench --json bench.json

# Changes the model in one place at a time: do the checks on the samples notice?  Then the compiled engine: does the sweep
# notice?  Takes about fifteen minutes.  To add a recording of the posted v14: make mutation MUTATION="--extra REC"
MUTATION ?=
mutation: $(VENV)/.installed
	$(BIN)/python -m tests.mutation --json mutation.json --markdown docs/mutation.md $(MUTATION)
	$(BIN)/python -m tests.mutation.compiled --json mutation-compiled.json --markdown docs/mutation-compiled.md

# One file for test boxes: Python 3.9 and root, no packages.
recorder:
	$(PYTHON) traces/record/build.py zreplay-record.pyz

# The same as a Debian package, in the directory above: apt install debhelper
deb:
	dpkg-buildpackage -b -us -uc

# Manual pages, made of the command's parsers: MANPATH=build/man: man zreplay-replay
man: $(VENV)/.installed
	$(BIN)/python -m replay.cli.manpages build/man/man1

# Executes docs/notebook.ipynb anew; the tests compare what comes out with what is there.
notebook: $(VENV)/.installed
	$(BIN)/python -m tests.notebooks

# Writes docs/terminal.md anew; some minutes, in QEMU for the most part: apt install qemu-system-x86 busybox-static
terminal: $(VENV)/.installed
	$(BIN)/python -m tests.terminals

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zreplay needs Python 3.11 or later; name one with make PYTHON=python3.11")'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo-report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
