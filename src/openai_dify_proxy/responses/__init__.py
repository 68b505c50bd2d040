"""Stored responses and conversations: store, recorder, continuation, background runs and their event logs."""
