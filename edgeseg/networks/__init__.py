"""The networks, what they are built from, and how they are folded, quantized, optimized and counted.

"TI's zoo" is Texas Instruments' edgeai-torchvision, whose networks these are.
"""
