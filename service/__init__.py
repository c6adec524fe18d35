"""The Image Export Pipeline: scripts in, paid pictures kept, PNG, JPEG, WebP and AVIF out."""
