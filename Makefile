# Two commands: `make course` and `make test`. Both start from nothing but python3, make and the package registries.
# The recipes stand in course.py, which works without make too: `python course.py`, `python course.py test`.
# Settings: N=04 OUT=folder JOBS=2 VENV=.venv TORCH=keep PYTHON=python3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help course test lab fresh lesson class slides site bench environment data export lock browser

help course test lab fresh lesson class slides site environment data export lock browser:
	@$(PYTHON) course.py $@

bench: environment data  ## Time budgets, and timings too long for every run
	$(BIN)/python bench/budgets.py
	$(BIN)/python bench/data.py
	$(BIN)/python bench/workers.py
	$(BIN)/python bench/drawn_bears.py
	$(BIN)/python bench/learner.py
	$(BIN)/python bench/vision.py
	$(BIN)/python bench/predict.py
	$(BIN)/python bench/augmentation.py
	$(BIN)/python bench/borrowed.py
	$(BIN)/python bench/photographs.py
	$(BIN)/python bench/recipes.py
	$(BIN)/python bench/recipes_photographs.py
	$(BIN)/python bench/digits.py
	$(BIN)/python bench/steps.py
	$(BIN)/python bench/collab.py
	$(BIN)/python bench/collab_parts.py
