"""What our own processes say about themselves: log lines and traces, with the request that is behind them.

The lowest layer: imports nothing of ours, and nothing but the standard library unless traces are on.
"""
