"""The limits of client keys, and the usage of all callers.

A request is checked before its turn waits for a slot, by one run of the state (``Limiter``). The usage of the turn is
booked when it ends (``Ledger``). ``verdicts``, ``accounts`` and ``reports`` are pure.
"""
