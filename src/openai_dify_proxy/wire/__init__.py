"""The messages of the outside world as typed structs, one module per vendor surface."""
