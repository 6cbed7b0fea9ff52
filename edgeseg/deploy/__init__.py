"""Exports networks: ONNX, torch.export, LiteRT, ExecuTorch, OpenVINO, Core ML, and folders for TIDL and browsers.

"TI's zoo" is Texas Instruments' edgeai-torchvision.
"""
