"""Requests to Dify, and events from its streams."""
