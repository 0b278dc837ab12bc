"""The machine: processor, memory, GPUs and their drivers, locks between processes."""
