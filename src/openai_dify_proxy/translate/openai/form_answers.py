"""Read the client's answer to the form of a paused run, and how it wants to get forms.

An answer is the field ``human_input``, or the result of a ``dify_human_input`` call. The result is a JSON object with
``action`` and ``inputs``, or only the id or the title of an action.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.human_input import CALL_NAME, is_token, token_of_call
from openai_dify_proxy.translate.turn_request import FormAnswer, FormMode, HistoryMessage
from openai_dify_proxy.wire.openai.chat import CompletionFields, HumanInputAnswer
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text

MAX_RESULT = 1024 * 1024
"""Characters of a result that are read as JSON; a longer one is no answer to a form."""


class FormFields(Struct, frozen=True):
    """What a request says about forms."""

    mode: FormMode | None = None
    answer: FormAnswer | None = None


NO_FORMS = FormFields()


def read_form_fields(request: CompletionFields, asked: Sequence[HistoryMessage], param: str) -> FormFields:
    """Return what a request says about forms; ``asked`` are its new messages in the field ``param``.

    Raises InvalidRequest for an answer that cannot be read, and for a result of the call beside other new messages.
    """
    sent = request.human_input
    if isinstance(sent, HumanInputAnswer):
        token = sent.token or None
        if token is not None and not is_token(token):
            raise InvalidRequest(
                "Invalid 'human_input.token'. Send the token of the answer that showed the form.",
                param="human_input.token",
                code="invalid_value",
            )
        return FormFields(None, FormAnswer(token, sent.action, sent.inputs, "human_input"))
    answer = None
    for message in asked:
        if message.call_id and (token := token_of_call(message.call_id)) is not None:
            if len(asked) > 1:
                raise InvalidRequest(
                    f"The result of '{CALL_NAME}' must be the only new message. Dify reads nothing else while a run "
                    "is paused; send other messages after the answer.",
                    param=param,
                )
            answer = read_result(message.text, token, param)
    return NO_FORMS if sent is None and answer is None else FormFields(sent, answer)


def read_result(text: str, token: str, param: str) -> FormAnswer:
    """Return the result of a call, in the field ``param``, as the answer to the form with ``token``.

    Raises InvalidRequest for a JSON object that has no action, or fields of other types.
    """
    value = _json(text)
    if isinstance(value, str):
        return FormAnswer(token, value, None, param)
    if not isinstance(value, dict):
        return FormAnswer(token, text, None, param)
    action, inputs = value.get("action"), value.get("inputs")
    if not isinstance(action, str) or not (inputs is None or isinstance(inputs, dict)):
        raise InvalidRequest(
            f"Invalid result of '{CALL_NAME}'. Send a JSON object: 'action' is the id or the title of an action, "
            "'inputs' an object with a value for each input of the form.",
            param=param,
            code="invalid_form_data",
        )
    return FormAnswer(token, action, inputs, param)


def _json(text: str) -> object:
    """Return the value of ``text`` as JSON; None if it is not."""
    if len(text) > MAX_RESULT or not text.lstrip().startswith(("{", '"')):
        return None
    try:
        return decode_text(text)
    except UNREADABLE:
        return None
