"""What computes: PyTorch, or OpenVINO on CPUs."""
