"""The Image Export Pipeline: scripts in, paid pictures kept, PNG, JPEG, WebP, AVIF and GIF out."""
