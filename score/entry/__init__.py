"""What Azure's entry scripts share."""
