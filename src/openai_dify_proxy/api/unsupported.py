"""OpenAI's and Anthropic's endpoints that have no counterpart in Dify apps."""

from __future__ import annotations

from openai_dify_proxy.errors import InvalidRequest, NotFound, ProxyError

_STORES = "Dify apps take no vector stores from clients. Add documents to the app's knowledge in Dify."
_TUNING = "Dify apps cannot be fine-tuned. Choose the app's model in Dify."
_AGENTS = "The Assistants API has no counterpart in Dify apps. Use POST /v1/responses with a conversation."

_TRANSLATIONS = "/audio/translations/"
"""A 400, since the request differs from that of a supported route in its task only."""

UNSUPPORTED = {
    "/chat/completions/chatcmpl-": "Chat completions are not stored. Responses are: use POST /v1/responses.",
    "/embeddings/": "Dify apps do not compute embeddings. Send this request to the provider of the embedding model.",
    "/rerank/": "Dify apps do not rerank documents. Send this request to the provider of the rerank model.",
    "/moderations/": "Dify apps do not classify text. Turn on content moderation in the app's settings in Dify.",
    _TRANSLATIONS: "Dify does not translate speech. Use POST /v1/audio/transcriptions.",
    "/audio/": "Dify apps transcribe and speak: use POST /v1/audio/transcriptions or POST /v1/audio/speech.",
    "/realtime/": "Dify apps have no realtime voice. Use POST /v1/audio/transcriptions and POST /v1/audio/speech.",
    "/videos/": "Dify apps do not generate videos. Send this request to the provider of the video model.",
    "/vector_stores/": _STORES,
    "/containers/": "Dify apps have no code containers. Run code inside the app, as a workflow node or a tool.",
    "/fine_tuning/": _TUNING,
    "/fine-tunes/": _TUNING,
    "/batches/": "Dify apps process no batches. Send each request to POST /v1/chat/completions.",
    "/evals/": "Dify apps run no evals. Send each test case to POST /v1/chat/completions.",
    "/assistants/": _AGENTS,
    "/threads/": _AGENTS,
    "/chatkit/": _AGENTS,
    "/organization/": "This server has no organization. Its keys and limits are set by its operator.",
    "/uploads/": "Uploads in parts are not supported. Send the whole file to POST /v1/files.",
    "/messages/": "The Anthropic API is not supported. Use an OpenAI client with POST /v1/chat/completions.",
    "/complete/": "The Anthropic API is not supported. Use an OpenAI client with POST /v1/chat/completions.",
    "/responses/compact/": "Conversations are not compacted. Dify limits the history by the app's memory window.",
}
"""A part of a path, and the error message. The first match wins: ``/threads/{id}/messages`` is not Anthropic's."""


def unsupported_endpoint(path: str) -> ProxyError | None:
    """Return the error for a path of such an endpoint, with or without a wrong prefix; None for any other."""
    for part, message in UNSUPPORTED.items():
        if part in f"{path}/":
            if part == _TRANSLATIONS:
                return InvalidRequest(message, code="unsupported_endpoint")
            return NotFound(message, code="unsupported_endpoint")
    return None
