"""Clips of video for tests: made, restored by a network that changes nothing, and read again."""

from fractions import Fraction

import numpy as np

from srcli.backends.base import Session
from srcli.loading.restorer import RunOptions, restorer_of
from srcli.models.spec import Geometry
from srcli.pipeline.passes import Passes
from srcli.video.files import Wishes, planned, restore_file
from srcli.video.formats import input_layout, planes_of
from srcli.video.joining import join


class Identity(Session):
    """A network that changes nothing, or repeats pixels."""

    def __init__(self, scale=1):
        self.scale = scale

    def __call__(self, batch):
        return batch.repeat(self.scale, 2).repeat(self.scale, 3)


def identity(scale=1):
    geometry = Geometry(minimum=1, margin=0, frame=0)
    return Passes([restorer_of(Identity(scale), geometry, scale, RunOptions(threads=1))])


def clip(
    path,
    *,
    codec="ffv1",
    pixels="yuv420p",
    size=(48, 32),
    matrix=1,
    color_range=1,
    times=range(0, 1200, 40),
    gop=10,
    options=None,
    transfer=2,
    setup=lambda container, stream: None,
    finish=lambda container: None,
):
    """Make a clip of moving ramps and noise; returns the planes of its frames."""
    import av

    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = *size, pixels
        context.time_base, context.gop_size = Fraction(1, 1000), gop
        context.colorspace, context.color_range, context.color_trc = matrix, color_range, transfer
        setup(out, stream)
        for number, time in enumerate(times):
            frame = av.VideoFrame(*size, pixels)
            bits = frame.format.components[0].bits
            for plane in frame.planes:
                words = np.frombuffer(plane, "u1" if bits == 8 else "<u2")
                height, width = plane.height, plane.width
                stride = plane.line_size // words.itemsize
                rows = words[: words.size // stride * stride].reshape(-1, stride)
                ramp = 60 + np.arange(width) + np.arange(height)[:, None] + 3 * number
                noise = rng.integers(0, 12, (height, width))
                rows[:height, :width] = np.clip(ramp + noise, 0, 250) << bits - 8
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            frame.colorspace, frame.color_range = matrix, color_range
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        finish(out)


def decoded(path):
    """The planes and the times in seconds of all frames."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = []
        for frame in container.decode(stream):
            layout = input_layout(frame.format.name, frame.width, frame.height, str(path))
            found.append((planes_of(frame, layout), frame.pts * stream.time_base))
        return found


def restored(source, target, *, scale=1, **wishes):
    """Run a plan with the identity; returns the plan."""
    plan = planned(Wishes(source=source, target=target, scale=scale, **wishes))
    restore_file(plan, identity(scale))
    join(source, plan.wishes.folder, target, replace=False)
    return plan
