"""Translates image requests to inputs of Replicate models, and their outputs and errors back."""
