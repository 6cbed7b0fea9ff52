"""Models as files: weights with the record that rebuilds the model, as one file or as a folder of the hub."""
