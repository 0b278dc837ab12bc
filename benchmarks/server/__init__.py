"""The server as its users meet it: rates, overload, bad input, slow clients, soak, stops."""
