"""The dashboard: pages rendered on the server over the same rows as the API.

`routes.make_pages` puts it together. Every page works with script switched off; scripts refresh, sort keys and
remember, nothing more. Text of users and models is hostile until `text` has made it harmless.
"""
