"""What deploying at Azure ML takes: sizes, plans, YAML, and a stand-in for Azure itself."""
