# Two commands: `make course` and `make test`. Both start from nothing but python3, make and the package registries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
N ?= 01
JOBS ?= 2
.DEFAULT_GOAL := help
OUT ?=
ONLY ?=
LONG ?=
EXPERIMENTS := workers drawn_bears augmentation borrowed head_start fine_tune night photographs recipes \
	recipes_photographs digits steps collab collab_parts
.PHONY: help course test lab fresh lesson class slides site bench experiments environment data export lock browser

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

course: environment data  ## From nothing: environment, data, every lesson run in order, site in _site/, a summary
	$(BIN)/python tools/run.py --all
	$(BIN)/python tools/build_site.py --nbs _run/nbs
	@echo; $(BIN)/python tools/run.py --table
	@echo "Read the course: open _site/index.html, or run: make lab"

test: environment data browser  ## Everything that CI checks, two things at a time: make test JOBS=2
	$(BIN)/ruff check
	$(BIN)/ruff format --check tests docs bench tools
	$(BIN)/python tools/check.py
	$(BIN)/python tools/run.py --all --jobs $(JOBS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lab: environment  ## JupyterLab on your own copies of the lessons, in my/
	$(BIN)/python tools/my.py
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/my/index.ipynb

fresh: environment  ## A new copy of one lesson in my/, the old one is kept: make fresh N=04
	@$(if $(filter file,$(origin N)),echo "Say which lesson: make fresh N=04"; exit 1)
	$(BIN)/python tools/my.py --fresh "$(N)"

lesson: environment  ## Export, then run one lesson alone: make lesson N=01
	$(BIN)/nbdev-export
	$(BIN)/python tools/run.py $(N)

class: environment  ## Lessons without answers for a class, and a sheet of them: make class OUT=our-class
	@$(if $(OUT),,echo "Say where to: make class OUT=our-class"; exit 1)
	$(BIN)/python tools/teaching.py class "$(OUT)"

slides: environment  ## Slides of a lesson, in _slides/: make slides N=04
	@$(if $(filter file,$(origin N)),echo "Say which lesson: make slides N=04"; exit 1)
	$(BIN)/python tools/teaching.py slides "$(N)"

site: environment  ## Build the site into _site/ from the committed outputs
	$(BIN)/python tools/build_site.py

bench: environment data  ## Races against others, and how cost grows, 40 minutes at most: make bench ONLY=digits,import
	$(BIN)/python bench/card.py --only "$(ONLY)" $(if $(LONG),--long)

experiments: environment data  ## Tables of long trainings that lessons show, made again: hours
	@for name in $(EXPERIMENTS); do echo "$$name"; $(BIN)/python bench/$$name.py || exit 1; done

export: environment  ## Write coursekit/ and README.md from the notebooks
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python tools/check.py --readme

lock: environment  ## Pin the newest versions that settings.ini allows
	$(BIN)/python tools/lock.py

environment:  ## Make or update .venv
	@$(PYTHON) tools/environment.py $(VENV)

data: environment  ## Fetch the data of the lessons
	$(BIN)/coursekit data fetch --course

# The browser tests use the system's Chromium. In CI on Linux it is installed here; elsewhere the tests say what to run.
browser:
ifdef CI
ifeq ($(shell uname -s),Linux)
	@for b in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$b >/dev/null && exit 0; done; \
	s=; [ "$$(id -u)" = 0 ] || s=sudo; echo "installing chromium with apt"; \
	$$s apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$s apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
endif
endif
