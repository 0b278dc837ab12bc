"""Shared by all commands: argument parser, exit codes, progress bar."""
