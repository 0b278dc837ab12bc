"""How fast and in how much memory, against what users would pick instead. See README.md."""
