"""Weights: what there is (catalog), reading and writing files (checkpoint), fitting them into a model (load)."""
