"""The machine: its processor, its memory, its GPUs and their drivers."""
