"""An index of vectors in a folder: nearest-neighbour search, near-duplicates, clusters."""
