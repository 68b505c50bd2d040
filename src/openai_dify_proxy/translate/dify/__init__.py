"""Requests to Dify, and the events in its streams."""
