"""Measurements behind README's figures, and the demo."""
