"""Model schemas in Cog's format: OpenAPI 3.0.2, with enums behind `allOf` and `$ref`, `x-order` and `nullable`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["string", "integer", "number", "boolean", "picture", "pictures"]
OutputShape = Literal["list", "string"]

URI = {"type": "string", "format": "uri"}


@dataclass(frozen=True)
class Param:
    """One input of a model. A picture is a URI; `choices` make the input an enum."""

    name: str
    kind: Kind
    description: str
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str | int, ...] = ()
    required: bool = False
    nullable: bool = False
    """Whether the schema has `nullable`, which only newer versions of Cog write."""

    def property(self, order: int) -> dict[str, Any]:
        """Return the entry in `Input.properties`."""
        if self.choices:
            entry: dict[str, Any] = {"allOf": [{"$ref": f"#/components/schemas/{self.name}"}]}
        else:
            entry = {**self._type(), "title": self.name.replace("_", " ").title()}
        limits = {"default": self.default, "minimum": self.minimum, "maximum": self.maximum}
        entry |= {name: value for name, value in limits.items() if value is not None}
        if self.nullable:
            entry["nullable"] = True
        return {**entry, "x-order": order, "description": self.description}

    def enum(self) -> dict[str, Any]:
        """Return the enum component that the property refers to."""
        kind = "integer" if isinstance(self.choices[0], int) else "string"
        return {"enum": list(self.choices), "type": kind, "title": self.name, "description": "An enumeration."}

    def _type(self) -> dict[str, Any]:
        match self.kind:
            case "picture":
                return dict(URI)
            case "pictures":
                return {"type": "array", "items": dict(URI)}
            case _:
                return {"type": self.kind}


def openapi(params: tuple[Param, ...], output: OutputShape) -> dict[str, Any]:
    """Return the `openapi_schema` of a model version."""
    inputs: dict[str, Any] = {
        "type": "object",
        "title": "Input",
        "properties": {param.name: param.property(order) for order, param in enumerate(params)},
    }
    if required := [param.name for param in params if param.required]:
        inputs["required"] = required
    outputs = {"type": "array", "items": dict(URI)} if output == "list" else dict(URI)
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": _PATHS,
        "components": {
            "schemas": {
                "Input": inputs,
                "Output": {**outputs, "title": "Output"},
                **_COMPONENTS,
                **{param.name: param.enum() for param in params if param.choices},
            }
        },
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _text(title: str) -> dict[str, str]:
    return {"type": "string", "title": title}


_PATHS = {
    "/predictions": {
        "post": {
            "summary": "Predict",
            "description": "Run a single prediction on the model",
            "operationId": "predict_predictions_post",
            "requestBody": {"content": {"application/json": {"schema": _ref("PredictionRequest")}}},
            "responses": {
                "200": {
                    "description": "Successful Response",
                    "content": {"application/json": {"schema": _ref("PredictionResponse")}},
                }
            },
        }
    }
}

_COMPONENTS: dict[str, Any] = {
    "Status": {
        "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
        "type": "string",
        "title": "Status",
        "description": "An enumeration.",
    },
    "PredictionRequest": {
        "type": "object",
        "title": "PredictionRequest",
        "properties": {"id": _text("Id"), "input": _ref("Input"), "webhook": {**_text("Webhook"), "format": "uri"}},
    },
    "PredictionResponse": {
        "type": "object",
        "title": "PredictionResponse",
        "properties": {
            "id": _text("Id"),
            "input": _ref("Input"),
            "output": _ref("Output"),
            "status": _ref("Status"),
            "error": _text("Error"),
            "logs": {**_text("Logs"), "default": ""},
            "metrics": {"type": "object", "title": "Metrics"},
        },
    },
}
