"""The models that srcli knows, in one explicit list."""

from __future__ import annotations

import difflib

from srcli.errors import UnknownModelError, UnsupportedScaleError
from srcli.models import asdn, awsrn, dcls, hpinet, lapar
from srcli.models.spec import ModelSpec, Scale, Task, number

MODELS: tuple[ModelSpec, ...] = (
    *lapar.SPECS,
    *awsrn.SPECS,
    *asdn.SPECS,
    *hpinet.SPECS,
    *dcls.SPECS,
)
DEFAULT_MODEL = "lapar-c"
DEFAULT_SCALE = 4


def model_names() -> tuple[str, ...]:
    """Return the names of all models, in the order of the registry."""
    return tuple(spec.name for spec in MODELS)


def get_model(name: str) -> ModelSpec:
    """Return the model of this name; case and underscores do not matter.

    Raises:
        UnknownModelError: There is none; the message proposes the nearest name.
    """
    wanted = name.lower().replace("_", "-")
    for spec in MODELS:
        if spec.name == wanted:
            return spec
    near = difflib.get_close_matches(wanted, model_names(), n=1)
    guess = f"Did you mean {near[0]}?" if near else "Run `srcli models` for the list."
    raise UnknownModelError(f"no model is called {name!r}", guess)


def check_task(spec: ModelSpec, task: Task) -> None:
    """Raise `UnsupportedScaleError` unless the model does the task."""
    if task not in spec.tasks():
        able = ", ".join(model.name for model in MODELS if task in model.tasks())
        raise UnsupportedScaleError(f"{spec.name} cannot {task}", f"Choose one of {able}.")


def check_scale(spec: ModelSpec, scale: Scale, task: Task = "upscale") -> None:
    """Raise `UnsupportedScaleError` unless the model does the task, by this scale."""
    check_task(spec, task)
    if spec.takes(scale, task):
        return
    offered = ", ".join(str(s) for s in spec.scales_for(task))
    remedy = f"Choose one of its scales: {offered}."
    if spec.any_scale is not None:
        remedy = f"Choose a scale from 1 to {spec.any_scale.largest}."
    raise UnsupportedScaleError(f"{spec.name} cannot {task} by {number(scale)}", remedy)
