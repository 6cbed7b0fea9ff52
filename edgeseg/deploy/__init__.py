"""To the device: ONNX and torch.export files (export), onnxruntime (segmenter), 8 bit (quantize)."""
