"""The words of messages that depend on what came: values as they are quoted, and what was meant."""
