"""Schema revisions, run by `storage.schema`; part of the package, no ini file.

Writing a revision after changing `storage.tables`, from a checkout:

    python -m storage.migrations.write "what changes"      # compares with the revisions so far

Until the first release the one revision is written anew instead:

    python -m storage.migrations.write --initial

Read and tidy what it wrote: a revision is code, and the tests hold it against the tables on both databases.
"""
