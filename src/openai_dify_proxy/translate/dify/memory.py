"""Detects whether the models of a chatflow see the conversation, by their prompts."""

from __future__ import annotations

from openai_dify_proxy.translate.history import normalize
from openai_dify_proxy.wire import dify


class MemoryDetector:
    """Looks for an earlier question of the conversation in the prompts of LLM nodes.

    ``remembers`` is None until a model has answered, and stays None without ``asked_before``.
    """

    __slots__ = ("_asked_before", "remembers")

    def __init__(self, asked_before: str | None) -> None:
        self._asked_before = asked_before
        self.remembers: bool | None = None

    def read(self, node: dify.NodeData) -> None:
        """Read an LLM node with ``process_data``. Failed nodes and truncated data are inconclusive."""
        asked_before = self._asked_before
        if asked_before is None or node.process_data_truncated:
            return
        prompts = (dify.PROCESS_DATA.decode(node.process_data) or dify.ProcessData()).prompts
        if prompts:
            self.remembers = self.remembers or any(asked_before in normalize(prompt.text or "") for prompt in prompts)


NO_MEMORY = MemoryDetector(None)
"""Detects nothing, and never changes."""
