# make demo   set up, then run the production loop on a simulated cell
# make test   set up, then run the tests
# make endurance   set up, then run the long ones: faults, kills, full disks, hundreds of sheets
# make lint   ruff and mypy
#
# make demo TORCH_INDEX=URL   take PyTorch from another index, e.g. its CPU builds
# make demo PYTHON=python3.12 choose the interpreter

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test endurance lint clean

demo: $(VENV)/installed
	rm -rf demo
	$(BIN)/station init demo
	cd demo && ../$(BIN)/station sim --seed 2026 --speed 4 --truth truth -- \
		../$(BIN)/station inspect --recipe glassfiber --sheets 12
	cd demo && ../$(BIN)/station report --recipe glassfiber --truth truth --out report.html
	@echo "open demo/report.html in a browser"

# A module's tests share their far ends, so a module stays with one worker; long modules begin.
test: $(VENV)/installed
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

endurance: $(VENV)/installed
	$(BIN)/pytest tests/hil/endurance

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with venv is needed (ur-rtde has no wheel for others)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo
