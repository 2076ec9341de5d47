# The two commands are `make run` and `make test`; the others are for development.
.PHONY: help run setup test test-long coverage check format bench chaos

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

run: ## set up and serve; HOST, PORT, COLLECTOR_DATA_DIR, COLLECTOR_DATABASE_URL, COLLECTOR_CONFIG
	@scripts/setup.sh
	@exec .venv/bin/python -m collector_site.supervisor

setup: ## the virtual environment with the tools for tests and checks
	@scripts/setup.sh dev

test: setup ## what every change must pass, on SQLite and on a real PostgreSQL that it starts by itself
	@scripts/test.sh

test-long: setup ## what takes long: more kills, lost databases and races of real processes
	@scripts/test.sh long

coverage: setup ## the suite on SQLite, and what it covers of every room
	@scripts/test.sh coverage

check: setup ## format, lint, types, imports
	@scripts/check.sh

format: setup ## bring the code into shape
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: setup ## measure, as JSON and a table, each figure as a ratio taken in the same run
	@.venv/bin/python -m benchmarks

chaos: setup ## faults under load, judged from outside: rounds on SQLite and on PostgreSQL
	@scripts/chaos.sh
