"""Input files: from bytes to checked lines, images stored once, and query rows.

`lines`, `native`, `chat` and `validate` are pure. `paths`, `fetch`, `pictures` and `resolve` reach for images,
`pack` prepares a file on the client's side, `ingest` writes the rows.
"""
