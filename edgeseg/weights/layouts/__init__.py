"""Translates the layouts of weights files that other projects publish to that of edgeseg."""
