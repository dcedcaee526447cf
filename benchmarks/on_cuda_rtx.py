"""Build plans of TensorRT-RTX for several GPUs, and see which of them load and run here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from on_cuda_timing import timed

TARGETS = ("CURRENT", "SM80", "SM89")
"""Members of TensorRT-RTX's `ComputeCapability`."""


def plans(tiny: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Build a plan for each target, load it and compare what it computes with PyTorch.

    Args:
        tiny: A small picture instead of 320 x 180.

    Yields:
        The target, and what was found, or what went wrong.
    """
    from srcli.backends.trt.engine import collecting_logger, load_tensorrt
    from srcli.loading.model import load

    trt: Any = load_tensorrt()
    model = load("lapar-c", 4)
    picture = np.random.default_rng(0).random(
        (1, 3, *((9, 16) if tiny else (180, 320))), np.float32
    )
    with torch.inference_mode():
        truth = model.published_network()(torch.from_numpy(picture)).numpy()
    for precision in ("fp16", "fp32"):
        graph = model.graph(precision).read_bytes()
        for target in TARGETS if precision == "fp16" else TARGETS[:1]:
            logger, messages = collecting_logger(trt)
            told: dict[str, Any] = {}
            try:
                began = time.monotonic()
                plan = built(trt, logger, graph, picture.shape, target)
                told |= {"megabytes": len(plan) / 1e6, "build_s": time.monotonic() - began}
                told |= ran(trt, logger, plan, picture, truth)
            except Exception as error:
                told["failed"] = f"{type(error).__name__}: {error}"[:200]
                told["messages"] = messages[-3:]
            yield f"{precision} for {target}", told


def built(trt: Any, logger: Any, graph: bytes, shape: tuple[int, ...], target: str) -> bytes:
    """Return a plan for pictures of one shape, and for one target."""
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise RuntimeError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, target), 0):
        raise RuntimeError("this target is refused")
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("nothing was built")
    return bytes(plan)


def ran(
    trt: Any, logger: Any, plan: bytes, picture: np.ndarray, truth: np.ndarray
) -> dict[str, Any]:
    """Load and run a plan; return its error and milliseconds, lazily and eagerly specialised."""
    began = time.monotonic()
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return {"failed": "does not load"}
    told: dict[str, Any] = {"load_s": time.monotonic() - began}
    if not torch.cuda.is_available():
        return told
    for label in ("lazy", "eager", "eager, graph"):
        try:
            context = engine.create_execution_context(configured(trt, engine, label))
            run, output = bound(trt, engine, context, picture)
            stream = torch.cuda.Stream()
            told[label] = timed(lambda run=run, s=stream: run(s.cuda_stream), 0.5, stream)
            torch.cuda.synchronize()
            told[label]["error"] = float(np.abs(output.float().cpu().numpy() - truth).max())
        except Exception as error:
            told[label] = f"{type(error).__name__}: {error}"[:160]
    return told


def configured(trt: Any, engine: Any, label: str) -> Any:
    """Return how an execution context is to specialise its kernels and launch them."""
    config = engine.create_runtime_config()
    if label != "lazy":
        strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = strategy
    if label.endswith("graph"):
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return config


def bound(trt: Any, engine: Any, context: Any, picture: np.ndarray) -> Any:
    """Return a function that enqueues a run on a stream, and the output, which it fills."""
    tensors = {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        kind = torch.float16 if engine.get_tensor_dtype(name) == trt.float16 else torch.float32
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            context.set_input_shape(name, picture.shape)
            tensors[name] = torch.from_numpy(picture).to("cuda", kind)
        else:
            tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind).cuda()
            output = tensors[name]
        context.set_tensor_address(name, tensors[name].data_ptr())

    def run(stream: int, kept: Any = tensors) -> None:
        if not context.execute_async_v3(stream):
            raise RuntimeError("it does not run")

    return run, output
