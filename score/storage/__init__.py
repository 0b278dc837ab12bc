"""Files and folders that are written: where a job may write, and whole or not at all."""
