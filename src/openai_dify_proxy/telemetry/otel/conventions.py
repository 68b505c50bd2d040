"""Names of OpenTelemetry's conventions.

Those for generative AI are of release 0.1.0 of https://github.com/open-telemetry/semantic-conventions-genai
(``docs/gen-ai/client-inference.md``); they are in development, and may change with its next release. Those for HTTP and
errors are stable, of https://github.com/open-telemetry/semantic-conventions.
"""

from __future__ import annotations

from typing import Final

GEN_AI_SCHEMA: Final = "https://opentelemetry.io/schemas/gen-ai/0.1.0"

# Attributes

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
CONVERSATION: Final = "gen_ai.conversation.id"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
MODALITY: Final = "gen_ai.token.modality"

ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
PATH: Final = "url.path"
SCHEME: Final = "url.scheme"

# Values

DIFY: Final = "dify"
CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
TEXT: Final = "text"

# Metrics

INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
INFERENCE_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
USED_INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
USED_OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
SERVER_DURATION: Final = "http.server.request.duration"

DURATION_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""In seconds, as the conventions advise for inference."""
