"""The verbs of `score azure`, a file each."""
