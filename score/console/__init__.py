"""What every command line shares: its parser, its exit codes, its progress bar."""
