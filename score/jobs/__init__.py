"""Jobs: what runs before or beside serving. Nothing the runtime needs is here."""
