"""Stored pictures, in a directory or an object store."""
