"""Reads weights files of any layout into networks.

`load` reads edgeseg's own files. `layouts` translates those of others: ImageNet weights of torchvision, timm and pycls,
and the checkpoints and ONNX files of Texas Instruments' edgeai-torchvision, here called TI's zoo.
"""
