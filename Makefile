# Two commands: `make course` and `make test`. Both start from nothing but python3, make and the package registries.
# The recipes stand in course.py, which works without make too: `python course.py`, `python course.py test`.
# Settings: N=04 OUT=folder JOBS=2 ONLY=digits VENV=.venv TORCH=keep PYTHON=python3.13
PYTHON ?= python3
.DEFAULT_GOAL := help
COMMANDS := help course test lab fresh lesson class slides site bench experiments environment data export lock browser
.PHONY: $(COMMANDS)

$(COMMANDS):
	@$(PYTHON) course.py $@
