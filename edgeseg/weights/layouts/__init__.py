"""Layouts of weights files that other projects publish, translated to ours."""
