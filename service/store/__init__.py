"""The store: keys such as `output/export_….png`, kept durably; callers never join paths."""
