"""The names of models: the table of networks, the catalog of weights, and the way from a name to a model.

"TI's zoo" is Texas Instruments' edgeai-torchvision, whose networks and weights edgeseg provides.
"""
