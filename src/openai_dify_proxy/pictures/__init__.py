"""What outlives a prediction: stored pictures, in a directory or an object store."""
