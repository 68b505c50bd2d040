"""How long tests wait for what must happen."""

PATIENCE = 60.0
"""Seconds after which a test gives up waiting for an event: ten times what the slowest one takes on an idle machine.

Tests wait for events and compare their order. No result depends on how fast the machine is, so that this limit only
ends the test of something that never happens.
"""
