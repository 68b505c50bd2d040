"""What the proxy costs, beside nginx passing the same bytes through. `bench/README.md` says what each figure means."""
