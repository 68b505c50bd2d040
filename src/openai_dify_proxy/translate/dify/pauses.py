"""Where a run has paused, and the form that it then waits for."""

from __future__ import annotations

from msgspec import Struct

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import Event, FinishReason, HumanInput, TurnIds, Usage
from openai_dify_proxy.translate.dify.answer_text import AnswerText
from openai_dify_proxy.translate.dify.forms import AWAITED, FormStyle, awaited_form, form_text
from openai_dify_proxy.translate.human_input import call_of_form
from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.dify import DifyEvent


class PausedAt(Struct, frozen=True):
    """The place where a run paused: its ids, and the ``characters`` and ``usage`` of it that earlier turns have.

    ``shows_form`` means that the stream is a snapshot of the paused run, which shows the form again.
    """

    ids: TurnIds = TurnIds()
    characters: int = 0
    shows_form: bool = False
    usage: Usage | None = None


NOT_PAUSED = PausedAt()


class PauseReader(Entity):
    """Reads the pause of a run that has paused ``before``, if at all; ``form`` is None until it pauses."""

    style: FormStyle
    before: PausedAt
    form: HumanInput | None = None

    def read(self, event: DifyEvent, text: AnswerText, out: list[Event]) -> None:
        """Read ``workflow_paused``. The form is a paragraph of ``text`` unless it becomes a call."""
        reasons = dify.WORKFLOW_PAUSED.decode(event.data).reasons or []
        self.form = awaited_form(reasons, self.before.characters + len(str(text)), self.style)
        if self._is_call:
            return
        texts = [form_text(reason, self.style) for reason in reasons]
        if self.before.shows_form:
            texts.insert(0, AWAITED)
        for paragraph in filter(None, texts):
            text.add_paragraph(paragraph, out)

    def finish(self, reason: FinishReason, out: list[Event]) -> FinishReason:
        """Emit the form if it is a call. Return the finish reason of the turn."""
        if self.form is None or not self._is_call:
            return reason
        out += call_of_form(self.form)
        return "tool_calls"

    def answer(self, event: DifyEvent) -> str | None:
        """Return the text before the pause that this turn has to send, if ``workflow_paused`` has it."""
        answer = (dify.WORKFLOW_PAUSED.decode(event.data).outputs or {}).get("answer")
        return answer[self.before.characters :] if isinstance(answer, str) else None

    @property
    def _is_call(self) -> bool:
        return self.style == "call" and self.form is not None and self.form.token is not None
