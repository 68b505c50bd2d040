"""A benchmark of the proxy against nginx, which passes the same bytes through. `bench/README.md` describes it."""
