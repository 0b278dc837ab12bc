"""An image cell → its bytes: URL, `data:` URI, base64 or path. The network's only door."""
