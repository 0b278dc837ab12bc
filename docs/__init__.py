"""What users read, and `docs.generator`, which writes the pages of docs/reference/."""
