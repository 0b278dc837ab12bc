"""What `score azure check` asks of YAML for Azure ML: a module for each thing that it looks at."""
