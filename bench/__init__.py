"""Benchmarks: ratios against a floor measured in the same run, each by one command, results in RESULTS.md."""
