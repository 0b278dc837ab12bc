"""What is wrong with a text that somebody has configured."""
