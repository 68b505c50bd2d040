"""The time limit of tests that wait for an event."""

PATIENCE = 60.0
"""Seconds that a test waits for an event: ten times as long as the slowest event takes on an idle machine.

Tests wait for events and compare their order, so no result depends on the speed of the machine. This limit only ends
tests whose event never comes.
"""
