"""Metrics in the format of Prometheus.

Requests are counted in plain dictionaries (``request_metrics``), which costs a few microseconds. ``exposition`` moves
the counts to prometheus-client once a second, or when they are read: its counters in files, which several processes
share, cost as much for each increment as the rest together.
"""
