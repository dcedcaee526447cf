"""TensorRT: engines built for one GPU, run with PyTorch's tensors on a stream of their own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srcli.backends.base import (
    Images,
    Model,
    OutOfMemory,
    RunsEveryModel,
    Session,
    SessionOptions,
    recent,
)
from srcli.backends.trt.engine import (
    Shape,
    current_gpu,
    last,
    load_tensorrt,
    open_runtime,
    read_engine,
    times,
)
from srcli.errors import BackendError, Obstacle

if TYPE_CHECKING:
    import tensorrt
    import torch

MAX_PREPARED = 4  # input shapes that keep their buffers and graphs: the tile, and some room
_DEVICE = "cuda"


class TensorRtBackend(RunsEveryModel):
    """Builds an engine from the exported graph on first use, keeps it, and runs it."""

    name = "trt"

    def unavailable(self) -> Obstacle | None:
        try:
            load_tensorrt()
        except BackendError as error:
            return Obstacle(error.problem, error.remedy)
        if current_gpu() is None:
            return Obstacle(
                "TensorRT needs an NVIDIA GPU that PyTorch can use", "Use another --backend."
            )
        return None

    def open(self, model: Model, options: SessionOptions) -> TensorRtSession:
        reason = self.unavailable()
        if reason:
            raise BackendError(reason.problem, reason.remedy)
        if options.precision == "bf16" or options.precision == "int8":
            raise BackendError(
                f"trt computes in fp32 or fp16, not {options.precision}",
                "Choose one of them with --precision.",
            )
        return TensorRtSession(model.engine(options.precision, options.shape))


@dataclass(slots=True)
class _Prepared:
    """Context and buffers for one input shape; addresses stay, as a captured graph demands."""

    context: tensorrt.IExecutionContext
    input: torch.Tensor
    output: torch.Tensor
    scratch: torch.Tensor
    used: bool = False
    graph: torch.cuda.CUDAGraph | None = None


class TensorRtSession(Session):
    """One engine, open on PyTorch's current CUDA device.

    The first batch of a shape is enqueued kernel by kernel; from the second on a CUDA graph of
    that shape is replayed. Every shape has an execution context of its own, because changing a
    context's shape changes state that its captured graph relies on.

    Attributes:
        info: The facts about the engine.
        min_shape: Smallest input of the engine's profile, NCHW.
        max_shape: Largest input of the engine's profile, NCHW.

    Raises:
        BackendError: The engine is damaged, stale, or refused by TensorRT.
    """

    def __init__(self, path: Path) -> None:
        import torch

        plan, self.info = read_engine(path)
        self._trt = load_tensorrt()
        reason = self.info.stale(self._trt, current_gpu())
        if reason:
            raise BackendError(f"{path}: {reason}", "Build it anew with `srcli export --trt`.")
        torch.cuda.init()
        self._runtime, self._messages = open_runtime(
            self._trt, host_code=bool(self.info.options.get("version_compatible"))
        )
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._refusal(f"cannot load {path}")
        self._engine = engine
        self._compiled: object = None  # kernels that TensorRT-RTX has compiled, for all contexts
        # TensorRT adds synchronisation on the default stream, and that one cannot be captured.
        self._stream = torch.cuda.Stream()
        self.cuda_stream = self._stream  # who measures must wait for it
        self._input, self._output = self._tensor_names()
        self._minimum, self._maximum = self._limits()
        self.min_shape, self.max_shape = self._minimum, self._maximum
        self._prepared: OrderedDict[Shape, _Prepared] = OrderedDict()

    def __call__(self, batch: Images) -> Images:
        import torch

        self._check(batch.shape)
        try:
            with torch.cuda.stream(self._stream), torch.inference_mode():
                ready = self._prepare(batch.shape)
                ready.input.copy_(torch.from_numpy(np.require(batch, np.float32, ["C", "W"])))
                self._run(ready)
                result = ready.output.float().cpu()  # waits for the stream
        except torch.OutOfMemoryError as error:
            self._prepared.clear()
            raise OutOfMemory(str(error)) from error
        return np.asarray(result.numpy())

    @property
    def facts(self) -> dict[str, object]:
        """Return the device and the precision of the engine, and the version of TensorRT."""
        return {
            "device": self.info.gpu or _DEVICE,
            "precision": self.info.precision,
            "tensorrt": f"{self.info.flavour} {self.info.version}",
        }

    @property
    def device_memory(self) -> int:
        """Free memory of the GPU, in bytes."""
        import torch

        return int(torch.cuda.mem_get_info()[0])

    def stage(self, batch: Images) -> Callable[[], object]:
        """Put a batch on the device.

        Returns:
            A function that runs the engine on it, and returns before the work is done.
        """
        import torch

        self._check(batch.shape)
        with torch.cuda.stream(self._stream), torch.inference_mode():
            ready = self._prepare(batch.shape)
            ready.input.copy_(torch.from_numpy(np.require(batch, np.float32, ["C", "W"])))
        self._stream.synchronize()
        return lambda: self._run(ready)

    def close(self) -> None:
        self._prepared.clear()
        for name in ("_compiled", "_engine", "_runtime"):  # in this order
            vars(self).pop(name, None)

    def _prepare(self, shape: Shape) -> _Prepared:
        """Return the context and buffers for a shape, from the cache or made now."""
        return recent(self._prepared, shape, MAX_PREPARED, lambda: self._allocate(shape))

    def _allocate(self, shape: Shape) -> _Prepared:
        import torch

        context = self._new_context()
        if context is None:
            raise self._refusal("cannot create an execution context")
        accepted = (
            context.set_optimization_profile_async(0, self._stream.cuda_stream)
            and context.set_input_shape(self._input, shape)
            and not context.infer_shapes()
        )
        if not accepted:
            raise self._refusal(f"cannot run a batch of {times(shape)}")
        size = max(1, context.update_device_memory_size_for_shapes())
        ready = _Prepared(
            context=context,
            input=torch.empty(shape, dtype=self._dtype(self._input), device=_DEVICE),
            output=torch.empty(
                tuple(context.get_tensor_shape(self._output)),
                dtype=self._dtype(self._output),
                device=_DEVICE,
            ),
            scratch=torch.empty(size, dtype=torch.uint8, device=_DEVICE),
        )
        _set_scratch(context, ready.scratch)
        context.set_tensor_address(self._input, ready.input.data_ptr())
        context.set_tensor_address(self._output, ready.output.data_ptr())
        return ready

    def _new_context(self) -> tensorrt.IExecutionContext | None:
        """Make a context that gets its scratch memory from here, as much as its shape needs."""
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.info.flavour != "tensorrt_rtx":
            return self._engine.create_execution_context(strategy)
        # TensorRT-RTX compiles kernels as it runs. Let it do that before the first run, not behind
        # its back with slower ones meanwhile, and record and replay by itself.
        engine: Any = self._engine
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        kernels = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._compiled is None:
            self._compiled = config.create_runtime_cache()
        config.set_runtime_cache(self._compiled)
        context: tensorrt.IExecutionContext | None = engine.create_execution_context(config)
        return context

    def _run(self, ready: _Prepared) -> None:
        import torch

        # TensorRT-RTX does this by itself.
        if ready.used and ready.graph is None and self.info.flavour == "tensorrt":
            graph = torch.cuda.CUDAGraph()
            # Records, runs nothing; other threads may call CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._enqueue(ready.context)
            ready.graph = graph
        if ready.graph is not None:
            ready.graph.replay()
        else:
            # The first run after a shape was set initialises; that must not be captured.
            self._enqueue(ready.context)
            ready.used = True

    def _enqueue(self, context: tensorrt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise self._refusal("cannot run the engine")

    def _check(self, shape: Shape) -> None:
        low, high = self._minimum, self._maximum
        fits = len(shape) == len(low) and all(
            a <= n <= b for a, n, b in zip(low, shape, high, strict=True)
        )
        if not fits:
            raise BackendError(
                f"a batch of {times(shape)} is outside the engine's profile, {times(low)} to "
                f"{times(high)}",
                "Choose another --tile, or build an engine with another profile.",
            )

    def _tensor_names(self) -> tuple[str, str]:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = self._trt.TensorIOMode
        inputs = [name for name in names if engine.get_tensor_mode(name) == mode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == mode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(
                f"the engine has inputs {inputs} and outputs {outputs}; srcli runs engines with "
                "one of each",
                "Export the model with srcli.",
            )
        return inputs[0], outputs[0]

    def _limits(self) -> tuple[Shape, Shape]:
        fixed = tuple(self._engine.get_tensor_shape(self._input))
        if -1 not in fixed:
            return fixed, fixed
        low, _, high = self._engine.get_tensor_profile_shape(self._input, 0)
        return tuple(low), tuple(high)

    def _dtype(self, name: str) -> torch.dtype:
        import torch

        types = {"FLOAT": torch.float32, "HALF": torch.float16}
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in types:
            raise BackendError(
                f"the engine's {name} is {kind}, not FLOAT or HALF", "Export the model with srcli."
            )
        return types[kind]

    def _refusal(self, what: str) -> BackendError:
        return BackendError(
            f"TensorRT {what} ({last(self._messages)})",
            "Build the engine anew with `srcli export --trt`.",
        )


def _set_scratch(context: tensorrt.IExecutionContext, scratch: torch.Tensor) -> None:
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
    else:  # TensorRT 10.0
        context.device_memory = scratch.data_ptr()
