"""Stores models: weights with the record that rebuilds the model, as one file or as a folder for the hub."""
