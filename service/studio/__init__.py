"""The static files of the web page at `/`."""
