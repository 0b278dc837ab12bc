"""Where a job may write, and files and folders that appear when they are complete."""
