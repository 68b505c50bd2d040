"""Picture formats and IPFS content ids, computed from bytes."""
