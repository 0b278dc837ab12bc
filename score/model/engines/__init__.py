"""The engines: PyTorch, and OpenVINO on CPUs."""
