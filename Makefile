# The stages of Tendril. `make help` lists them; variables show what can be changed.
SHELL := /bin/bash
PYTHON ?= python3.11
PY := .venv/bin/python
TENDRIL := .venv/bin/tendril
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
.PHONY: help setup harvest ls verify train study toys demo demo-language test test-all check bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo
	@echo "  e.g.  make harvest INPUTS=photos WEIGHTS=lucent SITES=mixed3b"
	@echo "        make train SITE=mixed3b LATENTS=1920 K=16"
	@echo "        make study"
	@echo "  Any other flag goes into ARGS: make harvest ARGS='--per-input all'."

setup: .venv/.ready ## make .venv with everything that is needed

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,demo-language]'
	@touch $@

harvest: setup ## network + inputs -> store/
	$(TENDRIL) harvest $(or $(RECIPE),$(if $(SUBJECT),images,inceptionv1)) $(call flag,INPUTS,inputs) $(call flag,WEIGHTS,weights) \
	  $(call flag,SUBJECT,subject) $(call flag,SITES,sites) $(call flag,LIMIT,limit) $(call flag,DEVICE,device) $(ARGS)

ls: setup ## list stores, runs and reports
	@$(TENDRIL) data ls $(ARGS)

verify: setup ## check every chunk and file of a store
	$(TENDRIL) data verify $(or $(STORE),latest) $(ARGS)

train: setup ## store -> a dictionary in runs/
	$(TENDRIL) train $(or $(RECIPE),topk) $(call flag,STORE,store) $(call flag,SITE,site) $(call flag,LATENTS,latents) \
	  $(call flag,K,k) $(call flag,STEPS,steps) $(call flag,DEVICE,device) $(ARGS)

# `make study RECIPE=scaling` without a RUN makes toys of its own first: two minutes on an idle core
TOYS := relu-circle relu-sphere relu-shell jumprelu-circle jumprelu-sphere jumprelu-shell topk-circle
SCALING := $(and $(filter scaling,$(RECIPE)),$(if $(RUN),,yes))

study: setup $(if $(SCALING),toys) ## dictionary -> a report in reports/
	$(TENDRIL) study $(or $(RECIPE),curves) $(if $(SCALING),--model --run $(TOYS)) $(call flag,RUN,run) \
	  $(call flag,SUBJECT,subject) $(call flag,WEIGHTS,weights) $(call flag,SITE,site) $(call flag,DEVICE,device) $(ARGS)

toys: setup ## dictionaries of a circle, a sphere and a shell, of many sizes
	$(TENDRIL) harvest toy_circle
	$(TENDRIL) harvest toy_sphere
	$(TENDRIL) harvest toy_shell
	for toy in circle sphere shell; do \
	  $(TENDRIL) train toy_relu_l1 --store toy-$$toy --name relu-$$toy && \
	  $(TENDRIL) train toy_jumprelu --store toy-$$toy --name jumprelu-$$toy || exit 1; done
	$(TENDRIL) train toy_topk --store toy-circle --name topk-circle

demo: setup ## offline, from images to pages: curve detectors and symmetries of an embedded network
	$(TENDRIL) harvest demo $(call flag,DEVICE,device)
	$(TENDRIL) train demo $(call flag,DEVICE,device)
	$(TENDRIL) study curves --run demo $(call flag,DEVICE,device)
	$(TENDRIL) harvest orbits_demo $(call flag,DEVICE,device)
	$(TENDRIL) train orbits_demo $(call flag,DEVICE,device)
	$(TENDRIL) train control_demo $(call flag,DEVICE,device)
	$(TENDRIL) study symmetry --run orbits-demo --controls control-demo $(call flag,DEVICE,device)

demo-language: setup ## offline, from text to pages of features: a sentence encoder and a causal model from PyPI
	$(TENDRIL) harvest language_demo $(call flag,DEVICE,device)
	$(TENDRIL) train language_demo $(call flag,DEVICE,device)
	$(TENDRIL) study features --run language-demo $(call flag,DEVICE,device)
	$(TENDRIL) harvest causal_demo $(call flag,DEVICE,device)
	$(TENDRIL) train causal_demo $(call flag,DEVICE,device)
	$(TENDRIL) study splice --run causal-demo $(call flag,DEVICE,device)
	$(TENDRIL) study features --run causal-demo $(call flag,DEVICE,device)

# one worker a core, one thread a worker: two threads a worker would wait for each other
test: setup ## the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m 'not slow' -n auto --dist worksteal

test-all: setup ## the slow tests too
	$(PY) -m pytest -q

check: setup ## format, lint, types, and the rules of the house
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PY) -m pytest -q tests/test_house.py

bench: setup ## measure speed, each beside its yardstick
	$(TENDRIL) bench $(or $(RECIPE),harvest) $(ARGS)

clean: ## remove .venv and caches; keep stores, runs and reports
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
