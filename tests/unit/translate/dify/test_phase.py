"""The transition table is complete, and every turn ends."""

from __future__ import annotations

from typing import get_args

import pytest

from openai_dify_proxy.translate.dify.phase import TRANSITIONS, Phase, Signal
from openai_dify_proxy.wire.dify import Mode


@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_reachable_phase_has_a_transition_for_every_signal(mode: Mode) -> None:
    transitions = TRANSITIONS[mode]
    reached = {Phase.RUNNING}.union(*(row.values() for row in transitions.values()))
    assert set(transitions) == {phase for phase in reached if not phase.ended}
    assert all(set(row) == set(get_args(Signal)) for row in transitions.values())


@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_turn_ends_with_its_stream(mode: Mode) -> None:
    for phase, row in TRANSITIONS[mode].items():
        assert row["stream_end"] is (Phase.FINISHED if phase.ending else Phase.CUT_OFF)


@pytest.mark.parametrize(
    ("phase", "ending", "ended", "concluded"),
    [
        (Phase.RUNNING, False, False, False),
        (Phase.MESSAGE_ENDED, True, False, True),
        (Phase.RUN_FINISHED, True, False, True),
        (Phase.FINISHED, True, True, True),
        (Phase.FAILED, True, True, True),
        (Phase.CUT_OFF, True, True, False),
    ],
)
def test_properties_of_phases(phase: Phase, ending: bool, ended: bool, concluded: bool) -> None:
    assert (phase.ending, phase.ended, phase.concluded) == (ending, ended, concluded)
