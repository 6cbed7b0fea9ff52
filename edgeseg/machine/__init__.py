"""The machine: files that appear whole, downloads, memory, what the processor can do. Knows nothing of edgeseg."""
