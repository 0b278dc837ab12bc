"""On an NVIDIA GPU: `python -m pytest tests/gpu`."""
