"""The dialects of the server, each over a real socket, with its real client where there is one."""
