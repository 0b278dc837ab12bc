"""The rules of `score azure check`, a module for each part of the YAML that they check."""
