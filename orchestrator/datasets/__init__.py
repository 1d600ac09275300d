"""Datasets as people have them, read as a stream of query lines.

`source.open_source` is the door: it finds the format, guesses which column is what, and yields lines of the
native form (or chat lines) whose images may still be bytes. `packing.jsonl` stores those and writes the lines.
"""
