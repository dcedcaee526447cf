"""Choose and open encoders: codec, options, colours, and metadata of HDR."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from srcli.errors import BackendError, UsageError, first_line
from srcli.video.containers import FULL_RANGE, LIMITED_RANGE, Facts
from srcli.video.formats import layout_of, name_of
from srcli.video.layout import Layout
from srcli.video.messages import INFO, heard

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

ENCODERS: Mapping[str, str] = MappingProxyType(
    {
        "x264": "libx264",
        "x265": "libx265",
        "av1": "libsvtav1",
        "prores": "prores_ks",
        "ffv1": "ffv1",
    }
)
"""Names for --codec, and FFmpeg's."""

USUAL_QUALITY: Mapping[str, int] = MappingProxyType({"x264": 17, "x265": 19, "av1": 24})
"""Constant rate factor where none is given: differences are hardly seen."""

CARRY_HDR = ("x264", "x265", "av1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an encoder is opened with; two encoders of equal ones make equal headers."""

    codec: str
    pixel_format: str
    width: int
    height: int
    time_base: tuple[int, int]
    rate: tuple[int, int]
    aspect: tuple[int, int] | None
    color_range: int
    primaries: int
    transfer: int
    matrix: int
    siting: str | None
    options: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return all of it for JSON."""
        return asdict(self)

    @property
    def layout(self) -> Layout:
        """Layout of the frames to encode."""
        layout = layout_of(self.pixel_format, self.width, self.height)
        assert layout is not None, "the format was chosen by its layout"
        return layout


def settings_for(
    facts: Facts,
    layout: Layout,
    *,
    full_range: bool,
    matrix: int,
    siting: str | None,
    codec: str = "auto",
    quality: int | None = None,
    preset: str | None = None,
) -> Settings:
    """Return the settings that keep what the input states.

    Args:
        facts: About the input.
        layout: Of the frames to write.
        full_range: Range of their codes.
        matrix: Number of their matrix, H.273; 2 if the input states none.
        siting: Of their chroma; None where nothing states it.
        codec: One of `ENCODERS`, or `auto`.
        quality: Constant rate factor.
        preset: Of the encoder.

    Raises:
        UsageError: The codec does not take such frames, or an option.
    """
    chosen = _automatic(facts, layout) if codec == "auto" else codec
    _check_format(chosen, layout)
    return Settings(
        codec=chosen,
        pixel_format=name_of(layout),
        width=layout.width,
        height=layout.height,
        time_base=_pair(facts.time_base),
        rate=_pair(facts.rate),
        aspect=None if facts.aspect is None else _pair(facts.aspect),
        color_range=FULL_RANGE if full_range else LIMITED_RANGE,
        primaries=facts.primaries,
        transfer=facts.transfer,
        matrix=matrix,
        siting=siting if layout.down == 2 else None,
        options=_options(chosen, facts, quality, preset),
    )


def _pair(value: Fraction) -> tuple[int, int]:
    return value.numerator, value.denominator


def _automatic(facts: Facts, layout: Layout) -> str:
    """Return the codec that everybody plays, and that keeps depth and subsampling."""
    order = ("x265", "ffv1") if facts.is_hdr else ("x264", "x265", "ffv1")
    able = [codec for codec in order if name_of(layout) in formats_of(codec)]
    return able[0] if able else "ffv1"


def formats_of(codec: str) -> list[str]:
    """Return the pixel formats of a codec, by FFmpeg's names.

    Raises:
        BackendError: This build of FFmpeg lacks it.
    """
    import av

    try:
        found = av.Codec(ENCODERS[codec], "w")
    except ValueError as error:
        raise BackendError(
            f"--codec {codec}: this build of PyAV has no {ENCODERS[codec]} ({first_line(error)})",
            "Choose another codec, or `pip install --upgrade av`.",
        ) from error
    return [entry.name for entry in found.video_formats or ()]


def _check_format(codec: str, layout: Layout) -> None:
    formats, name = formats_of(codec), name_of(layout)
    if name not in formats:
        able = [c for c in ENCODERS if name in formats_of(c)]
        others = f", or --codec {able[0]}" if able else ""
        usual = next((f for f in formats if f.startswith("yuv4")), formats[0])
        raise UsageError(
            f"--codec {codec} does not take {name}", f"Choose --pix-fmt {usual}{others}."
        )


def _options(codec: str, facts: Facts, quality: int | None, preset: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    if codec in USUAL_QUALITY:
        options["crf"] = str(USUAL_QUALITY[codec] if quality is None else quality)
    elif quality is not None:
        raise UsageError(f"--crf {quality}: {codec} has no such quality", "Leave out --crf.")
    if preset is not None:
        options["preset" if codec != "prores" else "profile"] = preset
    elif codec == "av1":
        options["preset"] = "6"
    own = _own_options(codec, facts)
    if own:
        name = {"x264": "x264-params", "x265": "x265-params", "av1": "svtav1-params"}[codec]
        options[name] = ":".join(own)
    if codec == "ffv1":
        options |= {"level": "3", "slicecrc": "1"}
    return options


def _own_options(codec: str, facts: Facts) -> list[str]:
    """Return options of the encoder itself: HDR's metadata, and silence."""
    # Without `info=0` x265 writes its processor and threads into the header: segments of two
    # machines would not join.
    own = ["log-level=error", "info=0"] if codec == "x265" else []
    if codec not in CARRY_HDR:
        return own
    if facts.mastering is not None:
        name = {"x265": "master-display"}.get(codec, "mastering-display")
        own.append(f"{name}={_mastering(facts.mastering, whole=codec != 'av1')}")
    if facts.light is not None:
        name = {"x264": "cll", "x265": "max-cll", "av1": "content-light"}[codec]
        own.append(f"{name}={facts.light[0]},{facts.light[1]}")
    return own


def _mastering(numbers: tuple[Fraction, ...], *, whole: bool) -> str:
    """Return mastering data as encoders read it: in 0.00002 and 0.0001 cd/m2, or as they are."""
    red, green, blue, white = (numbers[2 * k : 2 * k + 2] for k in range(4))
    least, most = numbers[8:]

    def said(values: tuple[Fraction, ...], unit: int) -> str:
        if whole:
            return ",".join(str(round(value * unit)) for value in values)
        return ",".join(f"{float(value):.6g}" for value in values)

    places = (("G", green), ("B", blue), ("R", red), ("WP", white))
    colors = "".join(f"{name}({said(place, 50000)})" for name, place in places)
    return f"{colors}L({said((most, least), 10000)})"


def configure(context: VideoCodecContext, settings: Settings) -> None:
    """Set up an encoder that is not open yet."""
    from av.codec.context import Flags

    context.width, context.height = settings.width, settings.height
    context.pix_fmt = settings.pixel_format
    context.time_base = Fraction(*settings.time_base)
    context.framerate = Fraction(*settings.rate)
    if settings.aspect is not None:
        context.sample_aspect_ratio = Fraction(*settings.aspect)
    context.color_range = settings.color_range
    context.color_primaries = settings.primaries
    context.color_trc = settings.transfer
    context.colorspace = settings.matrix
    context.flags |= Flags.global_header | Flags.frame_duration
    options = dict(settings.options)
    if settings.siting is not None and settings.siting != "paldv":
        options["chroma_sample_location"] = settings.siting
    if settings.codec == "x264" and (instructions := repeatable_x264()) is not None:
        # Not among the settings: these are the same on all machines that share the work.
        given = [options["x264-params"]] if "x264-params" in options else []
        options["x264-params"] = ":".join([f"asm={instructions}", *given])
    os.environ.setdefault("SVT_LOG", "1")  # AV1's encoder writes a page to stderr otherwise
    context.thread_count = 0  # as many as fit
    context.options = options


AVX512 = "AVX512"
_X264_USES = "using cpu capabilities:"


@cache
def repeatable_x264() -> str | None:
    """Return x264's option `asm` that makes its packets repeatable; None where they are anyway.

    In its code for AVX-512 x264 (165, in PyAV 18.1) reads memory that it did not set, where it
    weighs macroblocks: equal frames give other packets from run to run. So it gets all
    instructions but these. It names itself those that the processor has; another would end the
    process.
    """
    found = next((line for line in _x264_says() if _X264_USES in line), "")
    names = found.partition(_X264_USES)[2].split()
    return ",".join(name for name in names if name != AVX512) if AVX512 in names else None


def _x264_says() -> list[str]:
    """Return the lines that x264 writes when it is opened."""
    import av

    context = av.CodecContext.create(ENCODERS["x264"], "w")
    context.width, context.height, context.pix_fmt = 16, 16, "yuv420p"
    context.time_base = Fraction(1, 25)
    with heard(INFO) as lines:
        context.open()
    return lines


def opened_encoder(settings: Settings) -> VideoCodecContext:
    """Open an encoder.

    Raises:
        UsageError: It refuses its options.
    """
    import av

    context = av.CodecContext.create(ENCODERS[settings.codec], "w")
    configure(context, settings)
    try:
        context.open()
    except av.FFmpegError as error:
        raise UsageError(
            f"--codec {settings.codec} refuses its options ({first_line(error)})",
            "Check --preset, --crf and --pix-fmt.",
        ) from error
    return context
