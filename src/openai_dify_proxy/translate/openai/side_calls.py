"""Side calls: what chat clients ask beside the conversation (titles, tags, search queries, …), as ordinary chats.

A table per client recognises them by how their prompts begin and end, and says what the client takes for "nothing".
Each row was read in the client's own source, or recorded from the running program; versions stand beside the tables.
To miss one costs a turn, to take a person's question for one costs an answer. So:

- a row holds a whole sentence of the prompt, and mostly its end too;
- a prompt that stands alone counts only where nothing was said before it, one at the end of a conversation only after
  one;
- prompts that an operator rewrote are not guessed at.

Open WebUI's retrieval template begins with ``### Task:`` as well, and holds a person's question: it is no side call.
"""

from __future__ import annotations

from msgspec import Struct

from openai_dify_proxy.translate.turn_request import CONTINUE, SideCall, TurnMessages


class _Prompt(Struct, frozen=True):
    """How a client's prompt begins, what it holds, and how the question ends, white space at its end aside."""

    call: SideCall
    begins: str
    ends: str = ""
    holds: str = ""


def detect_side_call(messages: TurnMessages, *, named: bool) -> SideCall | None:
    """Return the side call that a request is, or None for a turn of a conversation, which may be ``named``."""
    question = messages.question
    if question == CONTINUE:
        return _detect_summary(messages)
    if len(messages.asked) != 1 or named:
        return None
    if messages.history:
        return _find(_AFTER_CHAT, _AFTER_CHAT_BEGINS, question, question)
    return _find(_ALONE, _ALONE_BEGINS, question, question) or _find(
        _BY_SYSTEM, _BY_SYSTEM_BEGINS, messages.system, question
    )


def _find(prompts: tuple[_Prompt, ...], begins: tuple[str, ...], text: str, question: str) -> SideCall | None:
    if not text.startswith(begins):
        return None  # all that an ordinary turn costs
    for prompt in prompts:
        if text.startswith(prompt.begins) and prompt.holds in text and question.rstrip().endswith(prompt.ends):
            return prompt.call
    return None


def _detect_summary(messages: TurnMessages) -> SideCall | None:
    """Return the side call whose prompt is a system message after the conversation, which has no question."""
    return next((prompt.call for prompt in _AFTER_CHAT_SYSTEM if messages.system.endswith(prompt.ends)), None)


def _begins(prompts: tuple[_Prompt, ...]) -> tuple[str, ...]:
    return tuple(prompt.begins for prompt in prompts)


# Open WebUI 0.5.20, 0.6.5, 0.6.43, 0.8.12 and 0.12.4: config.py, utils/middleware.py, utils/memory.py and
# utils/context_compaction.py of its wheels, and requests recorded from 0.12.4.
_HISTORY_END = "</chat_history>"
_OPEN_WEBUI_TITLE = SideCall("open-webui", "title", '{"title": ""}')  # it takes the first message, as without titles
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
        # Retrieval searches for the question itself then; a web search is left out.
        SideCall("open-webui", "queries", '{"queries": []}'),
        "### Task:\nAnalyze the chat history to determine the necessity of generating search queries",
        _HISTORY_END,
    ),
    _Prompt(
        # Without any JSON it draws what the question says; an empty prompt would be drawn as it is.
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
        # Nothing empty stands for a summary, but it has a way to do without: the messages' beginnings.
        SideCall("open-webui", "summary", ""),
        "### Task:\nSummarize the conversation history that will be compacted out of the active chat context.",
    ),
    _Prompt(
        SideCall("open-webui", "emoji", ""),  # without an emoji in the answer none is shown
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
        "```",
    ),
    _Prompt(
        SideCall("open-webui", "merge", None),  # a person asked for several models' answers in one
        "You have been provided with a set of responses from various models to the latest user query: ",
        holds="Your task is to synthesize these responses into a single, high-quality response.",
    ),
    _Prompt(
        SideCall("open-webui", "memory", '{"operations": []}'),
        "Review the completed conversation turn and decide whether long-term memory should change.",
    ),
)

# LibreChat: @librechat/agents 3.2.21, run against a server. Its title of no text becomes "Untitled Conversation"
# (packages/api/src/utils/sanitizeTitle.ts). The second form asks for JSON, and asks again and again without it.
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
# Whatever comes back is the name, even if it is empty.
_CHATBOX_TITLE = SideCall("chatbox", "title", "Untitled")
_CHATBOX = (
    _Prompt(_CHATBOX_TITLE, "Based on the chat history, give this conversation a name.\n", "The name is:"),
    _Prompt(_CHATBOX_TITLE, "Name the conversation based on the chat records.\n", "The conversation is named:"),
)

_ALONE = (*_OPEN_WEBUI, *_LIBRECHAT, *_CHATBOX)
"""Prompts that are the whole conversation."""

_ALONE_BEGINS = _begins(_ALONE)

# LobeChat: @lobehub/chat 1.143.3 (packages/prompts/src/chains), and src/prompts/chat.ts before. Whatever comes back is
# the title, and an empty one is asked for again after each turn: its own name for a topic without one ends that.
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
        SideCall("lobechat", "queries", ""),  # it searches for the question itself then
        "Given the following conversation and a follow-up question, rephrase the follow up question",
        "it's standalone query:",
    ),
    _Prompt(  # older versions, in every language; Cherry Studio's goes on otherwise, and stands before it
        SideCall("lobechat", "title", "默认话题"),
        "你是一名擅长会话的助理，你需要将用户的会话总结为 10 个字以内的标题",
    ),
)

# Cherry Studio: "prompts.title" of its en-us.json (at 0009b2b) and zh-cn.json (at 001f751), packages/shared/config/
# prompts.ts (at 1193e6f), and the mobile app's topic naming assistant. Without an answer the name stays as it is.
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
"""System prompts, the conversation being the only message of the user."""

_BY_SYSTEM_BEGINS = _begins(_BY_SYSTEM)

# NextChat: app/store/chat.ts at 043a672 and the English and Chinese locales. Without an answer the topic keeps its
# name; without a summary all that is older than the last few messages would be forgotten.
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
"""Last messages of the user in a conversation that is sent along as it was."""

_AFTER_CHAT_BEGINS = _begins(_AFTER_CHAT)

_AFTER_CHAT_SYSTEM = (
    _Prompt(
        _NEXTCHAT_SUMMARY,
        "",
        "Summarize the discussion briefly in 200 words or less to use as a prompt for future context.",
    ),
    _Prompt(_NEXTCHAT_SUMMARY, "", "简要总结一下对话内容，用作后续的上下文提示 prompt，控制在 200 字以内"),
)
"""System messages after a conversation that is sent along as it was."""
