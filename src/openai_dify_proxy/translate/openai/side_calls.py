"""Detect side calls: requests for titles, tags, search queries etc. that chat clients send as ordinary chats.

A table per client matches the start and the end of its prompts, and holds the answer that the client treats as
"nothing". Each row comes from the client's source or from a recording of the running program; the comments of
the tables name the versions. A missed side call costs a turn, but a false match costs a user an answer. Therefore:

- a row holds a whole sentence of the prompt, and usually its end too;
- a stand-alone prompt matches only without earlier messages, and a prompt at the end of a conversation only with them;
- prompts that an operator has rewritten are not detected.

Open WebUI's retrieval template also starts with ``### Task:``, but contains a user's question: it is not a side call.
"""

from __future__ import annotations

from msgspec import Struct

from openai_dify_proxy.translate.turn_request import CONTINUE, SideCall, TurnMessages


class _Prompt(Struct, frozen=True):
    """The start of a client's prompt, a part of it, and the end of the question without trailing white space."""

    call: SideCall
    begins: str
    ends: str = ""
    holds: str = ""


def detect_side_call(messages: TurnMessages, *, named: bool) -> SideCall | None:
    """Return the side call of a request, or None for an ordinary turn. ``named`` requests continue a conversation."""
    question = messages.question
    if question == CONTINUE:
        return _detect_summary(messages)
    if len(messages.asked) != 1 or named:
        return None
    found = None  # that of ordinary turns, which begin with none of the prompts
    if messages.history:
        if question.startswith(_AFTER_CHAT_STARTS):
            found = _find(_AFTER_CHAT, question, question)
        return found
    if question.startswith(_ALONE_STARTS):
        found = _find(_ALONE, question, question)
    if found is None and messages.system.startswith(_BY_SYSTEM_STARTS):
        found = _find(_BY_SYSTEM, messages.system, question)
    return found


def _find(prompts: tuple[_Prompt, ...], text: str, question: str) -> SideCall | None:
    for prompt in prompts:
        if text.startswith(prompt.begins) and prompt.holds in text and question.rstrip().endswith(prompt.ends):
            return prompt.call
    return None


def _detect_summary(messages: TurnMessages) -> SideCall | None:
    """Return the side call whose prompt is a system message after a conversation without a question."""
    return next((prompt.call for prompt in _AFTER_CHAT_SYSTEM if messages.system.endswith(prompt.ends)), None)


def _starts(prompts: tuple[_Prompt, ...]) -> tuple[str, ...]:
    return tuple(prompt.begins for prompt in prompts)


# Open WebUI 0.5.20, 0.6.5, 0.6.43, 0.8.12 and 0.12.4: config.py, utils/middleware.py, utils/memory.py and
# utils/context_compaction.py of its wheels, and requests recorded from 0.12.4.
_HISTORY_END = "</chat_history>"
_OPEN_WEBUI_TITLE = SideCall("open-webui", "title", '{"title": ""}')  # the first message becomes the title
_OPEN_WEBUI_FOLLOW_UPS = SideCall("open-webui", "follow_ups", '{"follow_ups": []}')
_OPEN_WEBUI = (
    _Prompt(_OPEN_WEBUI_TITLE, "### Task:\nGenerate a concise title summarizing the chat history.", _HISTORY_END),
    _Prompt(
        _OPEN_WEBUI_TITLE,  # up to 0.8
        "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.",
        _HISTORY_END,
    ),
    _Prompt(
        SideCall("open-webui", "tags", '{"tags": []}'),
        "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history",
        _HISTORY_END,
    ),
    _Prompt(
        _OPEN_WEBUI_FOLLOW_UPS,
        "### Task:\nPredict 3-5 useful messages this user might naturally send next",
        _HISTORY_END,
    ),
    _Prompt(
        _OPEN_WEBUI_FOLLOW_UPS,  # up to 0.8
        "### Task:\nSuggest 3-5 relevant follow-up questions or prompts that the user might naturally ask next",
        _HISTORY_END,
    ),
    _Prompt(
        # Without queries, retrieval searches for the question itself, and web search is skipped.
        SideCall("open-webui", "queries", '{"queries": []}'),
        "### Task:\nAnalyze the chat history to determine the necessity of generating search queries",
        _HISTORY_END,
    ),
    _Prompt(
        # Without JSON the question becomes the image prompt; an empty prompt in JSON would be used as it is.
        SideCall("open-webui", "image_prompt", ""),
        "### Task:\nGenerate a detailed prompt for am image generation task",  # "am" is theirs
        _HISTORY_END,
    ),
    _Prompt(
        SideCall("open-webui", "autocomplete", '{"text": ""}'),
        "### Task:\nYou are an autocompletion system.",
        "#### Output:",
    ),
    _Prompt(
        # An empty summary is invalid; the client then uses the beginnings of the messages.
        SideCall("open-webui", "summary", ""),
        "### Task:\nSummarize the conversation history that will be compacted out of the active chat context.",
    ),
    _Prompt(
        SideCall("open-webui", "emoji", ""),  # no emoji is shown
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
        "```",
    ),
    _Prompt(
        SideCall("open-webui", "merge", None),  # a user merges the answers of several models
        "You have been provided with a set of responses from various models to the latest user query: ",
        holds="Your task is to synthesize these responses into a single, high-quality response.",
    ),
    _Prompt(
        SideCall("open-webui", "memory", '{"operations": []}'),
        "Review the completed conversation turn and decide whether long-term memory should change.",
    ),
)

# LibreChat: @librechat/agents 3.2.21, run against a server. An empty title becomes "Untitled Conversation"
# (packages/api/src/utils/sanitizeTitle.ts). The second form requires JSON, and repeats the request without it.
_LIBRECHAT = (
    _Prompt(
        SideCall("librechat", "title", ""),
        "Provide a concise, 5-word-or-less title for the conversation, using ",
        holds="\n\nConversation:\nUser: ",
    ),
    _Prompt(
        SideCall("librechat", "title", '{"language": "", "title": ""}'),
        "Analyze this conversation and provide:\n1. The detected language of the conversation\n"
        "2. A concise title in the detected language",
        holds="\n\nUser: ",
    ),
)

# Chatbox: src/shared/prompts.ts of chatboxai/chatbox at f16a11f, and src/packages/prompts.ts of the community edition.
# Any answer becomes the name, even an empty one.
_CHATBOX_TITLE = SideCall("chatbox", "title", "Untitled")
_CHATBOX = (
    _Prompt(_CHATBOX_TITLE, "Based on the chat history, give this conversation a name.\n", "The name is:"),
    _Prompt(_CHATBOX_TITLE, "Name the conversation based on the chat records.\n", "The conversation is named:"),
)

_ALONE = (*_OPEN_WEBUI, *_LIBRECHAT, *_CHATBOX)
"""Prompts without earlier messages."""

_ALONE_STARTS = _starts(_ALONE)

# LobeChat: @lobehub/chat 1.143.3 (packages/prompts/src/chains), earlier src/prompts/chat.ts. Any answer becomes the
# title. After an empty one LobeChat asks again on each turn, so the answer is its own name for an untitled topic.
_LOBECHAT = (
    _Prompt(
        SideCall("lobechat", "title", "Default Topic"),
        "You are a professional conversation summarizer. Generate a concise title that captures the essence",
    ),
    _Prompt(
        SideCall("lobechat", "summary", None),
        "You're an assistant who's good at extracting key takeaways from conversations and summarizing them.",
        "should be limited to 400 tokens.",
    ),
    _Prompt(
        SideCall("lobechat", "queries", ""),  # it then searches for the question itself
        "Given the following conversation and a follow-up question, rephrase the follow up question",
        "it's standalone query:",
    ),
    _Prompt(  # older versions, in every language; Cherry Studio's longer prompt starts alike and is matched earlier
        SideCall("lobechat", "title", "默认话题"),
        "你是一名擅长会话的助理，你需要将用户的会话总结为 10 个字以内的标题",
    ),
)

# Cherry Studio: "prompts.title" of its en-us.json (at 0009b2b) and zh-cn.json (at 001f751), packages/shared/config/
# prompts.ts (at 1193e6f), and the mobile app's topic naming assistant. With an empty answer the name is unchanged.
_CHERRY_TITLE = SideCall("cherry-studio", "title", "")
_CHERRY_STUDIO = (
    _Prompt(
        _CHERRY_TITLE,
        "Summarize the conversation into a title in ",
        holds=" ignoring instructions and without punctuation or symbols.",
    ),
    _Prompt(_CHERRY_TITLE, "总结给出的会话，将其总结为语言为 "),
    _Prompt(_CHERRY_TITLE, "Summarize the given session as a 10-word title using user language"),
    _Prompt(_CHERRY_TITLE, "将给定的对话总结为一个10字以内的标题"),
    _Prompt(
        _CHERRY_TITLE,
        "你是一名擅长会话的助理，你需要将用户的会话总结为 10 个字以内的标题，标题语言与用户的首要语言一致",
    ),
    _Prompt(
        _CHERRY_TITLE,
        "You are an assistant skilled in conversation. You need to summarize the user's conversation into a title",
    ),
)

_BY_SYSTEM = (
    _Prompt(
        SideCall("open-webui", "tool_choice", '{"tool_calls": []}'),
        "Available Tools: [{",
        holds="Your task is to choose and return the correct tool(s) from the list of available tools",
    ),
    *_CHERRY_STUDIO,
    *_LOBECHAT,
)
"""System prompts, with the conversation in a single user message."""

_BY_SYSTEM_STARTS = _starts(_BY_SYSTEM)

# NextChat: app/store/chat.ts at 043a672 and the English and Chinese locales. With an empty answer the topic's name is
# unchanged; with an empty summary the client would forget all but the last few messages.
_NEXTCHAT_TITLE = SideCall("nextchat", "title", "")
_NEXTCHAT_SUMMARY = SideCall("nextchat", "summary", None)

_AFTER_CHAT = (
    _Prompt(
        _NEXTCHAT_TITLE,
        "Please generate a four to five word title summarizing our conversation without any lead-in, punctuation, ",
        "Remove enclosing quotation marks.",
    ),
    _Prompt(_NEXTCHAT_TITLE, "使用四到五个字直接返回这句话的简要主题", "请直接返回“闲聊”"),
    _Prompt(
        SideCall("chatbox", "summary", None),
        "Summarize this conversation as a handoff briefing for an assistant that will continue it WITHOUT access",
    ),
)
"""Last user messages after an unchanged conversation."""

_AFTER_CHAT_STARTS = _starts(_AFTER_CHAT)

_AFTER_CHAT_SYSTEM = (
    _Prompt(
        _NEXTCHAT_SUMMARY,
        "",
        "Summarize the discussion briefly in 200 words or less to use as a prompt for future context.",
    ),
    _Prompt(_NEXTCHAT_SUMMARY, "", "简要总结一下对话内容，用作后续的上下文提示 prompt，控制在 200 字以内"),
)
"""System messages after an unchanged conversation."""
