"""Tables ↔ rows and records: CSV, parquet, pandas, JSON lines, NumPy."""
