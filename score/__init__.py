"""CLIP image and text embeddings behind Azure ML's contract.

`score.core.embedder.Embedder` is the core; `score.contract.rows.Row` is what it takes.
"""

__version__ = "0.1.0"
