"""Submit, validate, dispatch, advance, finalize, reconcile; the API, the pages and the command line on top."""
