"""Reads weights files of any layout into networks.

`load` reads whole networks and `encoder` encoders. `layouts` translates the files of others: ImageNet weights of
torchvision, timm and pycls, and the checkpoints and ONNX files of Texas Instruments' edgeai-torchvision, here called
TI's zoo. `adapting` fits weights to a network of other tasks, classes or inputs.
"""
