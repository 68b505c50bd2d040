"""Picture formats, the Accept header, and IPFS content ids."""
