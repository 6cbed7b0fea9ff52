"""Drills: valid files are damaged at random, and whatever reads them must be right or refuse them by name.

`python -m tests.drills` runs them; see docs/CONTRIBUTING.md. A drill is a row of `DRILLS` in one of the files here.
"""
