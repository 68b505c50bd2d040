"""From an image request to stored pictures."""
