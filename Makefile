# make check | test | docs | table | lowest | drills: what .ci/run does, in parts, and more. PYTHON is the Python of the environment to use.
PYTHON ?= .venv/bin/python

.PHONY: check test docs table lowest drills

check:  ## linter, formatter, type checker
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

test:  ## the default tests, on two processes
	$(PYTHON) -m pytest -n 2 --dist loadfile

docs:  ## the site of the documents with its page for browsers, in the folder site
	$(PYTHON) -m sphinx -q -n -W -t try docs site

table:  ## MODEL_ZOO.md is in step with the code and the measurements
	$(PYTHON) benchmarks/zoo_table.py --check

lowest:  ## the tests with the lowest versions that pyproject.toml allows, in an environment of their own
	bash .ci/lowest

drills:  ## thousands of damaged files of every kind, which takes hours
	$(PYTHON) -m tests.drills
