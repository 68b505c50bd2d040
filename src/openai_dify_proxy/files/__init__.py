"""Files into Dify: uploads of the files in requests, and the files that clients store for later requests."""
