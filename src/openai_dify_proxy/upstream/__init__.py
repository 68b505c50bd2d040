"""The only code that opens connections: to Dify, Replicate, IPFS and fetched URLs."""
