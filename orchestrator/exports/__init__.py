"""Results as files: JSONL, parquet with the trace nested, CSV with guarded cells; joined with the input if asked."""
