# make run    set up, then the main job: all of DVC's stages, on the embedded default
# make test   set up, then the tests
# make prefect   set up, then a Prefect server and a worker on this machine; see docs/flows.md
# Everything is installed into .venv and pipeline/data/fontsource/node_modules, nothing elsewhere.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FONTS := pipeline/data/fontsource
PROFILE ?=

# DVC starts the stages' commands with this PATH, so that `python` is the project's own.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export RAY_USAGE_STATS_ENABLED := 0
export PYTHONUNBUFFERED := 1

.PHONY: setup run test lint bench s3 s3-stop s3-remote prefect prefect-stop lock clean

setup: $(VENV)/.installed $(FONTS)/node_modules/.installed

$(VENV)/.installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	touch $@

$(FONTS)/node_modules/.installed: $(FONTS)/package-lock.json
	npm ci --prefix $(FONTS) --no-audit --no-fund --loglevel=error
	touch $@

# A profile is a list of parameters that differ from params.yaml, see profiles/.
run: setup
ifeq ($(PROFILE),)
	if dvc status --quiet; then dvc repro; else python -m cluster.session python -m flows.repro; fi
else ifeq ($(wildcard profiles/$(PROFILE).txt),)
	@echo "there is no profiles/$(PROFILE).txt; there are: $(basename $(notdir $(wildcard profiles/*.txt)))" >&2; exit 2
else
	python -m cluster.session dvc exp run $(foreach line,$(shell grep -v '^\#' profiles/$(PROFILE).txt),-S '$(line)')
endif
	@if [ "$$(dvc remote default)" != local ]; then dvc push; fi

test: setup
	python -m pytest -n 2 --dist loadfile $(PYTEST)

lint: setup
	ruff check .
	ruff format --check .
	mypy

bench: setup
	python -m benchmarks $(BENCH)

# A real S3 server on this machine, in .s3/: see docs/s3.md.
s3: setup
	@python -m cluster.s3 start

s3-stop:
	@python -m cluster.s3 stop

# From now on this checkout pushes to and pulls from the bucket of the environment.
s3-remote: setup
	@test -n "$$S3_BUCKET" || { echo "S3_BUCKET is not set: source .s3/env, or name a bucket" >&2; exit 2; }
	dvc remote modify --local s3 url "s3://$$S3_BUCKET/dvc"
	dvc remote default --local s3

# A Prefect server on this machine, with deployments and a worker: see docs/flows.md.
prefect: setup
	@python -m flows.server start

prefect-stop:
	@python -m flows.server stop

# The lock is resolved by uv, which takes seconds where pip takes minutes, and installed by pip.
lock:
	python3 -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet uv
	$(VENV)/uv/bin/uv pip compile requirements.in -o requirements.lock --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --no-header --no-emit-index-url --quiet

clean:
	rm -rf $(VENV) $(FONTS)/node_modules .checkpoints
