"""Translation between image requests and the inputs, outputs and errors of Replicate models."""
