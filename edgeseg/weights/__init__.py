"""Weights: what there is (catalog), getting it (fetch, pretrained, hub), and any layout into a model (load).

Layouts: ours (checkpoint, config), the original's (original, original_onnx, unfold), the libraries' (encoder_files).
"""
