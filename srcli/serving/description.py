"""What a service offers: for its page and programs, and as an OpenAPI document."""

from __future__ import annotations

from fractions import Fraction

from srcli import __version__
from srcli.checkpoints.shipped import find_weights
from srcli.images import FORMATS
from srcli.jobs.sizes import SizeRequest
from srcli.jobs.steps import rules_for
from srcli.models.registry import DEFAULT_SCALE, get_model
from srcli.models.spec import INPUT_CHOICES, TASKS, ModelSpec, Task, number
from srcli.serving.settings import Settings

Document = dict[str, object]
FACTORS = ("1.5", "2", "3", "4", "6", "8")
"""Usual enlargements, for a page to offer; programs may ask for any."""


def offers(settings: Settings) -> Document:
    """Return models, formats and limits."""
    return {
        "version": __version__,
        "models": [_model(get_model(name)) for name in settings.models],
        "formats": list(FORMATS),
        "limits": {
            "bytes": settings.max_bytes,
            "pixels": settings.max_pixels,
            "seconds": settings.seconds,
            "lanes": settings.lanes,
            "queue": settings.queue,
        },
    }


def _model(spec: ModelSpec) -> Document:
    return {"name": spec.name, "title": spec.title, "tasks": _tasks(spec)}


def _tasks(spec: ModelSpec) -> Document:
    """Return the tasks that there are weights for, and what is known of each."""
    found = {task: _task(spec, task) for task in spec.tasks()}
    return {task: about for task, about in found.items() if about["scales"]}


def _task(spec: ModelSpec, task: Task) -> Document:
    rules = rules_for(spec, task, "auto", own_weights=False)
    here = [scale for scale in spec.scales_for(task) if find_weights(spec, scale, task)]
    return {
        "scales": here,
        "factors": [text for text in FACTORS if _reaches(spec, text)] if task == "upscale" else [],
        "photo_scales": [number(scale) for scale in rules.photo] if task == "upscale" else [],
        "good_for": spec.good_for.get(task, ""),
    }


def _reaches(spec: ModelSpec, factor: str) -> bool:
    """Tell whether there are weights for all passes that lead to a factor."""
    request = SizeRequest(scale=Fraction(factor))
    passes = request.resolve(1, 1, spec.reached("upscale"), spec.scale_grid).passes
    return all(find_weights(spec, scale, "upscale") is not None for scale in passes)


def openapi(settings: Settings) -> Document:
    """Return the OpenAPI document of the service."""
    document: Document = {
        "openapi": "3.1.0",
        "info": {
            "title": "srcli",
            "version": __version__,
            "description": "Image restoration: super-resolution, denoising, JPEG deblocking.",
        },
        "paths": {
            **{f"/v1/{task}": {"post": _restoring(task, settings)} for task in TASKS},
            "/v1/models": {"get": _plain("Models, formats and limits")},
            "/v1/progress/{word}": {
                "get": {
                    **_plain("How far a request is that was sent with `progress=word`"),
                    "parameters": [_parameter("word", {"type": "string"}, "path")],
                }
            },
            "/healthz": {"get": _plain("Whether the process lives")},
            "/readyz": {"get": _plain("Whether it takes pictures: 503 before and after")},
            "/metrics": {"get": _plain("Figures for Prometheus", "text/plain")},
        },
        "components": {"schemas": {"Problem": _PROBLEM}},
    }
    if settings.token is not None:
        document["security"] = [{"token": []}]
        document["components"] = {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        }
    return document


def _restoring(task: Task, settings: Settings) -> Document:
    models = [name for name in settings.models if task in _tasks(get_model(name))]
    parameters = [
        _parameter("model", {"enum": models, "default": settings.models[0]}),
        _parameter("format", {"enum": ["auto", *FORMATS], "default": "auto"}),
        _parameter("quality", {"type": "integer", "minimum": 1, "maximum": 100}),
        _parameter("lossless", {"type": "boolean", "default": False}),
        _parameter("strip", {"type": "boolean", "default": False}),
        _parameter("page", {"type": "integer", "minimum": 1}),
        _parameter("name", {"type": "string"}),
        _parameter("progress", {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"}),
    ]
    if task == "upscale":
        parameters[1:1] = [
            _parameter("scale", {"type": "string", "default": str(DEFAULT_SCALE)}),
            _parameter("input", {"enum": list(INPUT_CHOICES), "default": "auto"}),
            _parameter("denoise", {"type": "boolean", "default": False}),
            _parameter("deblock", {"type": "boolean", "default": False}),
        ]
    picture = {"schema": {"type": "string", "contentMediaType": "image/*"}}
    return {
        "summary": f"{task.capitalize()} one picture",
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"image/*": picture}},
        "responses": {
            "200": {
                "description": "The restored picture, as `srcli` writes it",
                "content": {f"image/{name}": picture for name in FORMATS},
                "headers": {
                    "Srcli-Notes": {
                        "description": "Notes for people: a JSON list",
                        "schema": {"type": "string"},
                    }
                },
            },
            **{code: _refusal(text) for code, text in _REFUSALS.items()},
        },
    }


def _parameter(name: str, schema: Document, place: str = "query") -> Document:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _plain(summary: str, media: str = "application/json") -> Document:
    content = {media: {"schema": {"type": "string" if media == "text/plain" else "object"}}}
    return {"summary": summary, "responses": {"200": {"description": summary, "content": content}}}


def _refusal(text: str) -> Document:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}


_REFUSALS = {
    "400": "A parameter makes no sense, or there is no picture",
    "404": "The model is not offered",
    "408": "The picture arrived too slowly",
    "413": "Too many bytes or pixels",
    "422": "The file cannot be read",
    "503": "Too much to do: see Retry-After",
    "504": "The work took too long",
}
_PROBLEM: Document = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do next"},
        "problem": {"type": "string", "description": "What is wrong"},
        "remedy": {"type": "string", "description": "What to do next"},
    },
    "required": ["type", "title", "status", "detail", "problem", "remedy"],
}
