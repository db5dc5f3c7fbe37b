"""The JSON schema of suite files, for editors: the pydantic models, completed with the settings of every component that is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import packaged, write_text
from ..plugins import NoSettings, available
from ..readout import READOUTS
from .schema import Suite


def suite_schema(plugins: Sequence[Path] = ()) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a suite. plugins: folders whose components are known too; their Python is imported."""
    schema = Suite.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "icl suite"
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    for kind in ("selector", "order", "calibration", "metric", "method"):
        definitions[kind] = _component(kind, plugins, definitions)
    definitions["retriever"] = {
        "description": "A selector, or several, each narrowing what the one before it left.",
        "anyOf": [{"$ref": "#/$defs/selector"}, {"type": "array", "items": {"$ref": "#/$defs/selector"}, "minItems": 1}],
    }
    schema["properties"]["methods"]["items"] = {"$ref": "#/$defs/method"}
    schema["properties"]["metrics"]["anyOf"] = [{"type": "array", "items": {"$ref": "#/$defs/metric"}}, {"type": "null"}]
    return schema


def _component(kind: str, folders: Sequence[Path], definitions: dict[str, Any]) -> dict[str, Any]:
    """A name, or a mapping from one name to its settings; a method may carry a name of its own."""
    found = available(kind, folders)
    forms: list[dict[str, Any]] = [{"enum": sorted(found)}] if found else []
    for name, plugin in sorted(found.items()):
        settings = getattr(plugin.load(), "Settings", NoSettings).model_json_schema(ref_template=f"#/$defs/{kind}.{name}.{{model}}")
        for inner, definition in settings.pop("$defs", {}).items():
            definitions[f"{kind}.{name}.{inner}"] = definition
        settings["description"] = plugin.description
        settings.pop("title", None)
        if kind == "method":
            for option, value in settings.get("properties", {}).items():
                settings["properties"][option] = {**value, **_COMPONENT_OPTIONS.get(option, {})}
        form: dict[str, Any] = {
            "type": "object",
            "properties": {name: {"anyOf": [settings, {"type": "null"}]}},
            "required": [name],
            "additionalProperties": False,
        }
        if kind == "method":
            form["properties"]["name"] = {"type": "string", "description": "What the results call it."}
            only = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "The only tasks that it is judged on."}
            form["properties"]["tasks"] = only
        forms.append(form)
    return {"anyOf": forms or [{"type": "string"}]}


_COMPONENT_OPTIONS: dict[str, dict[str, Any]] = {
    "retriever": {"$ref": "#/$defs/retriever"},
    "order": {"$ref": "#/$defs/order"},
    "calibration": {"anyOf": [{"$ref": "#/$defs/calibration"}, {"type": "null"}]},
    "readout": {
        "anyOf": [{"enum": list(READOUTS)}, {"type": "array", "items": {"enum": list(READOUTS)}, "minItems": 1, "uniqueItems": True}]
    },
}
"""Options of methods that name another component."""


def write_schema(path: Path | None = None) -> Path:
    """Write the schema of what is packaged, by default beside the packaged suites."""
    path = path or packaged("eval_suites") / "suite.schema.json"
    write_text(path, json.dumps(suite_schema(), ensure_ascii=False, indent=1) + "\n")
    return path


if __name__ == "__main__":
    print(write_schema())
