# Each of these commands does the whole set-up on a fresh Debian machine:
#   make demo    installs all requirements and bakes templates/web.yaml in a real machine
#   make test    installs all requirements and runs the tests
# For an ordinary user they install Debian packages with sudo; nothing else needs root.

SHELL := /bin/sh
BAKE := .venv/bin/bake
PYTEST := .venv/bin/python -m pytest
export BAKE_TIMES := $(CURDIR)/.times
BENCH_RUNS ?= 3
BENCH ?=

.PHONY: demo test test-aws check lint unit integration setup setup-test bench figures lock catalog-schema clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: setup  ## bake templates/web.yaml (and the base below it) in a real machine
	$(BAKE) build templates/web.yaml
	$(BAKE) images

setup:  ## install the requirements of bake, into .venv
	@.ci/packages run
	@.ci/venv run

setup-test:
	@rm -f $(BAKE_TIMES)
	@.ci/timed "Debian packages" .ci/packages test
	@.ci/timed "Python packages" .ci/venv dev

test: setup-test  ## everything: check, then real machines and servers
	@.ci/timed "ruff, mypy, import-linter" $(MAKE) --no-print-directory lint; a=$$?; \
	.ci/timed "unit tests" $(MAKE) --no-print-directory unit; b=$$?; \
	.ci/timed "real machines and servers" $(MAKE) --no-print-directory integration; c=$$?; \
	.ci/timed --table; exit $$((a | b | c))

check: lint unit  ## ruff, mypy --strict, import contract, unit tests: within a minute or two

lint:
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports

unit:
	@$(PYTEST) -q -n 2 --timeout 120 tests/unit

integration:
	@$(PYTEST) -q -n 3 --dist loadgroup --no-loadscope-reorder --durations=25 tests/integration

test-aws: setup-test  ## builds templates/web-ec2.yaml in the AWS account of the environment, which costs some cents: AWS_LIVE=1 make test-aws
	@$(PYTEST) -q tests/live

bench: setup  ## side by side with Debian's Packer, into docs/benchmarks.md: about an hour (BENCH_RUNS=3 BENCH="--only app"); then bake's start
	@command -v packer >/dev/null || .ci/packages bench
	@.venv/bin/python -m bench --runs $(BENCH_RUNS) $(BENCH)
	@.venv/bin/python -m bench.startup

figures: setup-test  ## the pictures of README.md and docs/: a real build of templates/web.yaml (BAKE_HOME=DIR: in another home)
	@.venv/bin/python -m docs.figures.terminal build $(BAKE) build templates/web.yaml
	@$(BAKE) history web --json | .venv/bin/python -m docs.figures.lineage -
	@.venv/bin/python -m docs.figures.draw

lock:  ## lock the Python packages again (needs uv)
	printf 'setuptools\nwheel\npip\n' | uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 --no-header - -o .ci/requirements/build.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 --no-header pyproject.toml -o .ci/requirements/run.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 --no-header pyproject.toml --extra dev --extra ansible -o .ci/requirements/dev.txt

catalog-schema:  ## generate the schema of a new catalog from its migrations
	.venv/bin/python -c 'from baker.catalog import database, sqlite; sqlite.SCHEMA.write_text(database.schema_sql())'

clean:  ## remove files that make created here (images and builds remain: see bake rm)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info .times
