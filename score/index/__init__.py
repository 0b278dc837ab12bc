"""An index of vectors in a folder, with nearest-neighbour search."""
