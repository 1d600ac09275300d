"""What every command shares: exit codes, the HTTP client of the JSON API, output and progress."""
