"""The networks, and forms of them: optimized, quantized; what they cost."""
