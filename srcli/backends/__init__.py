"""Backends, the ways to run a model: each is one small file behind the protocol in `base.py`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from srcli.backends.base import Backend, Model, Precision, Session, SessionOptions
from srcli.backends.eager import TorchBackend
from srcli.backends.native.compiled import is_narrow
from srcli.backends.native.session import NativeBackend
from srcli.backends.openvino.session import OpenVinoBackend
from srcli.backends.ort import OnnxRuntimeBackend
from srcli.backends.preference import measured_order
from srcli.backends.trt.session import TensorRtBackend
from srcli.errors import BackendError, DeclinedError, Obstacle, VerificationError
from srcli.models.spec import ModelSpec
from srcli.system.cuda import driver

# Fastest first on a CPU, as measured: see `benchmarks/results`.
BACKENDS: tuple[Backend, ...] = (
    NativeBackend(),
    OpenVinoBackend(),
    OnnxRuntimeBackend(),
    TorchBackend(),
    TensorRtBackend(),
)


_ABSENT = " is not installed"


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends."""
    return tuple(backend.name for backend in BACKENDS)


def get_backend(name: str, spec: ModelSpec | None = None, precision: Precision = "fp32") -> Backend:
    """Return the backend of this name; `auto` is the fastest that works here.

    Blind networks run in PyTorch unless another backend is named: only there all tiles of a picture
    share one blur kernel.

    Args:
        name: Of the backend, or `auto`.
        spec: The model to run; None for any.
        precision: Number type to compute in.

    Raises:
        BackendError: It does not exist, cannot be used on this machine, or not for this model.
    """
    obstacles: list[Obstacle] = []
    for backend in _able(name, spec, precision, obstacles):
        return backend
    raise _no_backend(name, obstacles)


def open_model(name: str, model: Model, options: SessionOptions) -> tuple[Backend, Session]:
    """Open a model in the backend of this name; `auto` is the fastest that takes it here.

    Where a form of the model does not prove itself, `auto` says so and goes on; PyTorch then runs
    the published network, which needs no proof.

    Raises:
        BackendError: As `get_backend`, or the backend does not run these weights.
        VerificationError: The one backend that was asked for has a form that does not prove itself.
        WeightsError: The network gives values that are not finite.
    """
    obstacles: list[Obstacle] = []
    refused = False
    for backend in _able(name, model.spec, options.precision, obstacles):
        try:
            if refused and isinstance(backend, TorchBackend):
                model.note(f"{model.spec.name}: PyTorch runs the published network")
                return backend, backend.open_published(model, options)
            return backend, backend.open(model, options)
        except (DeclinedError, VerificationError) as error:
            if name != "auto":
                raise
            obstacles.append(Obstacle(error.problem, error.remedy))  # names the backend itself
            if unproven := _unproven(error):
                refused = True
                model.note(f"{backend.name} is left out: {unproven}")
    raise _no_backend(name, obstacles)


def _unproven(error: Exception) -> str | None:
    """Return what did not prove itself, in one sentence; None if the backend declined otherwise."""
    cause = error if isinstance(error, VerificationError) else error.__cause__
    if not isinstance(cause, VerificationError):
        return None
    return f"{cause.problem}."


def _able(
    name: str, spec: ModelSpec | None, precision: Precision, obstacles: list[Obstacle]
) -> Iterator[Backend]:
    """Return the backends of this name that can be used; add to `obstacles` why others cannot."""
    if name == "auto" and spec is not None and spec.blind:
        # In PyTorch a blind network gives out its kernel, so that all tiles share one.
        name = TorchBackend.name
    if spec is not None and precision in ("fp16", "bf16") and spec.half_tolerance is None:
        problem = f"{spec.name}: half precision ruins what this network computes"
        obstacles.append(Obstacle(problem, "Leave out --precision."))
        return
    for backend in by_preference(spec):
        if name in ("auto", backend.name):
            obstacle = backend.unavailable()
            if obstacle is None and spec is not None:
                obstacle = backend.declines(spec, precision)
            if obstacle is None:
                yield backend
            else:
                named = f"{backend.name}: {obstacle.problem}"
                obstacles.append(Obstacle(named, obstacle.remedy))


def _no_backend(name: str, obstacles: list[Obstacle]) -> BackendError:
    """Return the error that names every obstacle, and the remedy that helps with most models."""
    if not obstacles:
        names = ", ".join(backend_names())
        return BackendError(f"no backend is called {name!r}", f"Choose from {names}.")
    if len(obstacles) == 1:
        return BackendError(obstacles[0].problem, obstacles[0].remedy)
    absent = [each for each in obstacles if each.problem.endswith(_ABSENT)]
    problems = [each.problem for each in obstacles if each not in absent]
    if absent:
        names = ", ".join(each.problem.partition(":")[0] for each in absent)
        problems.append(f"not installed: {names}")
    # PyTorch runs every model, and what others run is prepared by it.
    torch = [each for each in absent if each.problem.startswith(f"{TorchBackend.name}: ")]
    return BackendError("; ".join(problems), (torch or obstacles)[-1].remedy)


def by_preference(spec: ModelSpec | None = None) -> tuple[Backend, ...]:
    """Return all backends, those first that `auto` prefers on this machine.

    What `srcli doctor --tune` measured decides for the models that it measured. Else a GPU is used
    through PyTorch, which is ready at once; a TensorRT engine takes minutes to build, so it must be
    asked for.

    Args:
        spec: The model to run; None for any.
    """
    measured = () if spec is None else measured_order(spec)
    if measured:
        last = len(measured)
        places = {name: place for place, name in enumerate(measured)}
        return tuple(sorted(BACKENDS, key=lambda backend: places.get(backend.name, last)))
    if driver().devices and _torch_knows_cuda():
        return _moved(TorchBackend.name, 0)
    if BACKENDS[0].unavailable() is None and is_narrow():
        return _moved(NativeBackend.name, 2)
    return BACKENDS


def _moved(name: str, place: int) -> tuple[Backend, ...]:
    """Return all backends in their order, but one in another place."""
    others = [backend for backend in BACKENDS if backend.name != name]
    others[place:place] = [backend for backend in BACKENDS if backend.name == name]
    return tuple(others)


def _torch_knows_cuda() -> bool:
    try:
        return not metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False
