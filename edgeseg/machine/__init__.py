"""Services of the machine: downloads, atomic writes, memory, instruction sets. It imports nothing of edgeseg."""
