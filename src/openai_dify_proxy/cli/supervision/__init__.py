"""The supervisor of ``serve``: a small process that starts the workers, and replaces them.

It imports the standard library only, or it would take as much memory as a worker: its messages, log lines and settings
are those of ``channel``, ``lines`` and ``loaded``.
"""
