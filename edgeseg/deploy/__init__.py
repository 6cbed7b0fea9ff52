"""Exports networks to files: ONNX (`onnx`), torch.export (`program`), and 8-bit ONNX by PTQ (`quantize`).

"TI's zoo" is Texas Instruments' edgeai-torchvision.
"""
