"""Durable file storage by keys such as `output/export_….png`, so that no caller joins paths."""
