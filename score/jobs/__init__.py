"""What the batch commands do: embed, label, split, merge."""
