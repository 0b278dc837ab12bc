"""CLIP image and text embeddings behind Azure ML's contract.

`score.embedder.Embedder` is the core; `score.rows.Row` is what it takes.
"""

__version__ = "0.1.0"
