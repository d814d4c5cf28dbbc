"""The answers of the service for its OpenAPI schema, and the page at /docs, which shows the schema without scripts."""
from html import escape
from typing import Any

from pydantic import BaseModel, Field

SOUND = {"type": "string", "format": "binary"}
# How the body of an upload is described, for `openapi_extra`.
BODIES: dict[str, Any] = {"requestBody": {
    "required": True,
    "description": "A sound: the file itself with any audio type or application/octet-stream, or the first file of a "
                   "form.",
    "content": {"application/octet-stream": {"schema": SOUND}, "audio/*": {"schema": SOUND},
                "multipart/form-data": {"schema": {"type": "object", "required": ["file"],
                                                   "properties": {"file": SOUND}}}}}}


class Model(BaseModel):
    """The model that answers."""
    name: str = Field(description="Name of its file.")
    sha256: str = Field(description="SHA-256 of its file.")


class Tag(BaseModel):
    """A tag of a sound."""
    tag: str
    probability: float = Field(ge=0, le=1)


class Second(BaseModel):
    """The tags of one second."""
    second: int = Field(description="Its number, from 0.")
    tags: list[Tag]


class TagsAnswer(BaseModel):
    """The tags of a sound."""
    seconds: float = Field(description="Length of the sound.")
    tags: list[Tag] = Field(description="The most probable one first.")
    notes: list[str] | None = Field(None, description="Remarks, such as that samples were clipped.")
    timeline: list[Second] | None = Field(None, description="With timeline=true.")
    model: Model


class Health(BaseModel):
    """The service is running."""
    status: str
    classes: list[str]
    sample_rate: int = Field(description="Of the model, in Hz. Sounds of other rates are resampled.")
    model: Model


class Ready(BaseModel):
    """The service is ready for sounds."""
    status: str
    model: Model


class Error(BaseModel):
    """An error."""
    detail: str = Field(description="What is wrong, and what to do.")
    model: Model


ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Error, "description": text} for status, text in {
    400: "The upload was interrupted, or the form is damaged.",
    408: "The upload was too slow.",
    413: "The upload is too large.",
    415: "The body is neither a sound nor a form.",
    422: "The sound cannot be used, or an option is invalid.",
    429: "Your address has too many uploads in progress. Retry-After has the seconds to wait.",
    500: "The service has a fault.",
    503: "The service is busy or shutting down. Retry-After has the seconds to wait."}.items()}

STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
code, pre { font: 14px/1.4 ui-monospace, monospace; background: #f3f3f3; border-radius: 4px; padding: 0 .25em }
pre { padding: .6em; overflow-x: auto }
h2 { margin-top: 2rem; border-top: 1px solid #ccc; padding-top: 1rem }
h2 code { font-size: 1em }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } code, pre { background: #2a2a2a }
  a { color: #8bf } }"""
# The page may load nothing: its style is part of it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def docs_page(schema: dict[str, Any]) -> str:
    """Return the page of an OpenAPI schema as HTML."""
    title = escape(schema["info"]["title"])
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
             f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{escape(schema['info']['description'])} "
             "The <a href='openapi.json'>OpenAPI schema</a> is for programs.</p>"]
    parts += [describe(path, method, operation, schema) for path, methods in schema["paths"].items()
              for method, operation in methods.items()]
    return "\n".join(parts) + "</html>"


def describe(path: str, method: str, operation: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a section of the page."""
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"]
    if body := operation.get("requestBody"):
        parts.append(f"<p>{escape(body['description'])}</p>"
                     f"<pre>curl --data-binary @dog.wav ADDRESS{escape(path)}\ncurl -F file=@dog.wav "
                     f"ADDRESS{escape(path)}</pre><form method='post' enctype='multipart/form-data' "
                     f"action='{escape(path.lstrip('/'))}'><input type='file' name='file' aria-label='Sound' required> "
                     "<button>Send</button></form>")
    if options := operation.get("parameters"):
        rows = [[f"<code>{escape(option['name'])}</code>", escape(option.get("description", "")),
                 f"<code>{escape(format_default(option['schema'].get('default')))}</code>"] for option in options]
        parts.append(table(["option", "meaning", "default"], rows))
    rows = [[status, escape(answer["description"]), " ".join(map(describe_content, answer.get("content", {}).items()))]
            for status, answer in operation["responses"].items()]
    parts.append(table(["status", "answer", "content"], rows))
    names = {name for answer in operation["responses"].values() for name in schema_names(answer)} - {"Error"}
    for name in sorted(names):
        parts.append(f"<h3>{escape(name)}</h3>" + table(["field", "meaning"], [
            [f"<code>{escape(field)}</code>", escape(values.get("description", ""))]
            for field, values in schema["components"]["schemas"][name]["properties"].items()]))
    return "\n".join(parts)


def format_default(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def describe_content(item: tuple[str, dict[str, Any]]) -> str:
    kind, content = item
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f"{escape(kind)} {escape(name)}".strip()


def schema_names(answer: dict[str, Any]) -> set[str]:
    """Return the names of the schemas to which an answer refers."""
    return {content["schema"]["$ref"].rpartition("/")[2] for content in answer.get("content", {}).values()
            if "$ref" in content.get("schema", {})}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of cells that are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
