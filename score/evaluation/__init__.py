"""How right a model is: metrics, prompts, reports."""
