"""A long run of the proxy under load and faults, in which every answer is checked. README.md defines its figures."""
