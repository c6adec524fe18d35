"""Readers of the file formats, one module each: parse the headers, and strip what Pillow does not need to decode."""
