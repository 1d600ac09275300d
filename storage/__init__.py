"""Tables, legal state moves, queries by subject, object store and migrations. Imports `reasoning` alone of ours."""
