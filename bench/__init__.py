"""The benchmarks that the figures in the README and docs/performance.md come from, and the demo."""
