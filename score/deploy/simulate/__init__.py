"""A stand-in for Azure ML on this machine: runs endpoints, batch jobs and images as Azure does."""
