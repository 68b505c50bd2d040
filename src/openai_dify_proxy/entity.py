"""The base of structs that hold the state of something in progress."""

from __future__ import annotations

from msgspec import Struct


class Entity(Struct, eq=False):
    """A struct with an identity: its fields change, and it equals only itself.

    Structs are created in C, several times faster than by an ``__init__``. Their usual ``repr`` shows every field; this
    one shows none, since they may hold keys and prompts, and the event loop logs the callbacks that fail.
    """

    __repr__ = object.__repr__
