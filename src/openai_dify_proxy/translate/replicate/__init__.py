"""Image requests as the inputs of a Replicate model, and its outputs and errors."""
