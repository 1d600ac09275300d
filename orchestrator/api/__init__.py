"""The JSON API over HTTP. `app.make_api` puts it together; each file holds the routes of one subject."""
