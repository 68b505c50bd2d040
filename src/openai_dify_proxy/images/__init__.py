"""Generation of pictures: models, predictions, upscaling, and IPFS uploads."""
