"""Warnings that frameworks and SDKs emit about themselves, as filters of pytest. All other warnings are errors."""

from __future__ import annotations

PARSED_FIELD = (
    r"ignore:Pydantic serializer warnings\x3a\s+PydanticSerializationUnexpectedValue\(Expected `none` .*"
    r"field_name='parsed':UserWarning"
)
"""LangChain dumps what openai parsed; openai declares the field `parsed` without its type."""

PYDANTIC_V1 = r"ignore:Received a Pydantic BaseModel V1 schema\. This is not supported by method=:UserWarning"
"""LangChain's suite passes a class of Pydantic v1, for which LangChain calls a function instead."""

NO_FILE_NAME = "ignore:OpenAI may require a filename for file uploads:UserWarning"
"""LangChain's suite sends documents without names, for which LangChain invents one."""

ALL_ATTRIBUTES = "ignore::pydantic.warnings.PydanticDeprecationWarning"
"""LlamaIndex' workflows read every attribute of an agent, the deprecated ones of Pydantic too."""

UNSERIALIZED_MEMORY = r"ignore:Skipping serialization of known unserializable key\x3a memory"
"""LlamaIndex cannot store its own chat memory with this release of Pydantic, and says that it expects that."""
