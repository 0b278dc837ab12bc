"""Bytes → RGB → uint8 pixels."""
