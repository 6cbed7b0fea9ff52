"""Pixels: reading photos, masks and optical flow, preparing them for a network, drawing what it found."""
