"""Names: the table of networks, the catalog of weights, and from a name to a model."""
