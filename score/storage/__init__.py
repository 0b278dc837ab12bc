"""Where a job may write; files and folders that appear only when they are complete."""
