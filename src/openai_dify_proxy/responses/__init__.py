"""Stored responses and conversations, with background runs and their event logs."""
