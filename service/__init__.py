"""The Image Export Pipeline: scripts in, paid pictures kept, PNG, JPEG and WebP out."""
