"""The worker processes of ``serve``, which serve its requests."""
