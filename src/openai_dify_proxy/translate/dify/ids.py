"""The ids of a turn, collected from its first events."""

from __future__ import annotations

import re

from openai_dify_proxy.events import TurnIds
from openai_dify_proxy.wire.dify import DifyEvent

NO_IDS = TurnIds()

_ID = re.compile(r"[!-~]{1,128}")
"""Dify's ids are UUIDs. Anything that is safe in a header is passed on."""


def add_ids(known: TurnIds, event: DifyEvent) -> TurnIds:
    """Return ``known`` with the ids of ``event`` that it lacks. Invalid ones count as absent."""
    is_id = _ID.fullmatch
    task, message, conversation, run = event.task_id, event.message_id, event.conversation_id, event.workflow_run_id
    return TurnIds(
        known.task_id or (task if task and is_id(task) else None),
        known.message_id or (message if message and is_id(message) else None),
        known.conversation_id or (conversation if conversation and is_id(conversation) else None),
        known.workflow_run_id or (run if run and is_id(run) else None),
    )
