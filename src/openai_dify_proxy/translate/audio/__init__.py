"""Formats of audio files."""
