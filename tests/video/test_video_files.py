"""Files through PyAV: planes, times, streams and tags, and segments."""

import json
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from support.clips import clip, decoded, identity, restored

from srcli.errors import InputError, OutputError
from srcli.video import files, segments
from srcli.video.colorspace import Wanted
from srcli.video.files import Wishes, planned, restore_file
from srcli.video.formats import name_of
from srcli.video.joining import join

pytestmark = pytest.mark.services
MATRIX = {"bt709": 1, "bt601": 6, "bt2020": 9}


@pytest.fixture(autouse=True)
def av():
    return pytest.importorskip("av", reason="needs PyAV")


@pytest.fixture
def ffprobe():
    """What another program reads in a file: FFmpeg's own, not PyAV's."""
    program = shutil.which("ffprobe")
    if program is None:
        pytest.skip("needs ffprobe")

    def read(path):
        shown = ["-show_streams", "-show_format", "-show_chapters"]
        command = [program, "-v", "error", *shown, "-of", "json", path]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    return read


PIXELS = [
    *("yuv420p", "yuv422p", "yuv444p", "gray", "gbrp10le"),
    *("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv444p16le"),
]


@pytest.mark.parametrize("pixels", PIXELS)
def test_planes_and_times_come_back(tmp_path, pixels):
    """By an identity network and a codec without loss."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    for size, matrix, full in (
        ((48, 32), "bt601", 2),
        ((49, 31), "bt709", 1),
        ((18, 11), "bt2020", 1),
    ):
        if pixels in ("gbrp10le", "gray"):
            full = 2
        number = 0 if pixels == "gbrp10le" else MATRIX[matrix]
        times = [0, 40, 80, 81, 200, 233, 1000]
        clip(source, pixels=pixels, size=size, matrix=number, color_range=full, times=times)
        plan = restored(source, target, codec="ffv1")
        assert name_of(plan.run.layout) == pixels
        if pixels not in ("gbrp10le", "gray"):
            assert plan.converter.space.matrix == matrix
            assert plan.converter.space.full_range == (full == 2)
        before, after = decoded(source), decoded(target)
        assert [time for _, time in after] == [time for _, time in before]
        assert [time for _, time in after] == [Fraction(time, 1000) for time in times]
        for (given, _), (found, _) in zip(before, after, strict=True):
            for one, other in zip(given, found, strict=True):
                assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
        target.unlink()


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [
        ("x264", "yuv420p", "mp4"),
        ("x264", "yuv422p10le", "mkv"),
        ("x265", "yuv420p10le", "mkv"),
        ("x265", "yuv420p12le", "mp4"),
        ("av1", "yuv420p10le", "mkv"),
        ("prores", "yuv422p10le", "mov"),
        ("ffv1", "yuv444p", "mkv"),
    ],
)
def test_every_codec_keeps_depth_colour_and_times(tmp_path, ffprobe, codec, pixels, suffix):
    source, target = tmp_path / "in.mkv", tmp_path / f"out.{suffix}"
    size = (96, 80)
    clip(source, pixels=pixels, size=size, matrix=9, times=[0, 40, 80, 130, 131, 200, 300, 340])
    restored(source, target, codec=codec, scale=2)
    (stream,) = ffprobe(target)["streams"]
    assert (stream["width"], stream["height"], stream["pix_fmt"]) == (192, 160, pixels)
    assert stream["color_space"] == "bt2020nc"
    before, after = decoded(source), decoded(target)
    assert [time for _, time in after] == [time for _, time in before]
    assert np.abs(after[3][0][0][::2, ::2].astype(int) - before[3][0][0]).mean() < 6 << (
        int(before[3][0][0].max() > 255) * 4
    )


def rich(path, tmp_path):
    """A clip with two audio tracks, subtitles, a font, chapters and tags."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("needs ffmpeg")
    clip(tmp_path / "video.mkv", times=range(0, 4000, 40))
    (tmp_path / "s.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nHello\n")
    (tmp_path / "font.ttf").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "meta").write_text(
        ";FFMETADATA1\ntitle=A clip\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=2000\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=2000\nEND=4000\ntitle=Two\n"
    )
    sounds = [word for hz in (440, 880) for word in ("-f", "lavfi", "-i", f"sine={hz}:d=4")]
    command = [
        program,
        "-v",
        "error",
        "-y",
        "-i",
        "video.mkv",
        *sounds,
        "-i",
        "s.srt",
        "-i",
        "meta",
    ]
    command += [word for place in range(4) for word in ("-map", str(place))]
    command += ["-map_metadata", "4", "-map_chapters", "4", "-attach", "font.ttf"]
    command += ["-metadata:s:t", "mimetype=application/x-truetype-font", "-c:v", "copy"]
    command += ["-metadata:s:a:0", "language=deu", "-metadata:s:v", "title=Seen"]
    command += ["-disposition:a:1", "default", "-disposition:s:0", "forced", path]
    subprocess.run(command, cwd=tmp_path, check=True)


SIZES = ("width", "height", "coded_width", "coded_height", "extradata_size", "bit_rate", "level")


def alike(probed):
    """What should be equal: all but sizes, and what the codec of the picture brings."""
    found = []
    for stream in probed["streams"]:
        left_out = {*SIZES, "duration", "duration_ts", "codec_tag", "codec_tag_string"}
        tags = {k: v for k, v in stream.pop("tags", {}).items() if k not in ("ENCODER", "DURATION")}
        found.append(({k: v for k, v in stream.items() if k not in left_out}, tags))
    tags = {k: v for k, v in probed["format"]["tags"].items() if k != "ENCODER"}
    return found, probed["chapters"], tags


def test_everything_else_is_kept(tmp_path, ffprobe):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    rich(source, tmp_path)
    restored(source, target, scale=2, codec="ffv1")
    before, after = ffprobe(source), ffprobe(target)
    assert [s["codec_type"] for s in after["streams"]] == [
        *("video", "audio", "audio", "subtitle", "attachment")
    ]
    assert alike(after) == alike(before)


def packets(path, kind):
    import av

    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


def test_sound_is_copied_packet_by_packet(tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    rich(source, tmp_path)
    restored(source, target, codec="ffv1")
    for kind in ("audio", "subtitle"):
        assert packets(target, kind) == packets(source, kind)


def test_a_part(tmp_path, ffprobe):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    rich(source, tmp_path)
    restored(source, target, codec="ffv1", start=1.0, end=3.0)
    before, after = decoded(source), decoded(target)
    assert len(after) == 50 and after[0][1] == 0
    assert all(map(np.array_equal, after[0][0], before[25][0]))
    starts = [float(chapter["start_time"]) for chapter in ffprobe(target)["chapters"]]
    assert starts == pytest.approx([0, 1], abs=0.04)
    sound = packets(target, "audio")
    assert abs(sound[0][0]) < 0.05 and 1.9 < sound[-1][0] < 2


def test_rotation_and_shape_of_pixels(tmp_path, ffprobe):
    def turned(container, stream):
        stream.set_display_rotation(90)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    clip(source, codec="libx264", setup=turned)
    restored(source, target, scale=2)
    (before,), (after,) = ffprobe(source)["streams"], ffprobe(target)["streams"]
    assert after["sample_aspect_ratio"] == before["sample_aspect_ratio"] == "4:3"
    assert after["side_data_list"] == before["side_data_list"]


MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize("codec", ["x264", "x265", "av1"])
def test_hdr_keeps_its_metadata(tmp_path, codec):
    import av

    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    options = {"x265-params": f"log-level=error:master-display={MASTERING}:max-cll=1000,400"}
    clip(
        source,
        codec="libx265",
        pixels="yuv420p10le",
        size=(96, 80),
        matrix=9,
        transfer=16,
        options=options,
    )
    plan = restored(source, target, scale=2, codec=codec)
    assert plan.facts.is_hdr and plan.facts.light == (1000, 400) and plan.notes == ()
    with av.open(str(target)) as container:
        facts = files.facts_of(container, container.streams.video[0], target)
    assert facts.light == (1000, 400) and facts.transfer == 16
    for found, given in zip(facts.mastering, plan.facts.mastering, strict=True):
        assert float(found) == pytest.approx(float(given), rel=2e-3, abs=1e-4)


def test_a_codec_that_cannot_carry_hdr_says_so(tmp_path):
    source = tmp_path / "in.mkv"
    options = {"x265-params": f"log-level=error:master-display={MASTERING}"}
    clip(source, codec="libx265", pixels="yuv420p10le", size=(96, 80), options=options)
    plan = planned(Wishes(source=source, target=tmp_path / "out.mkv", scale=2, codec="ffv1"))
    assert "cannot carry the mastering" in plan.notes[0]


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(files, "SEGMENT_SECONDS", 0.4)


@pytest.mark.parametrize("codec", ["x264", "ffv1"])
def test_segments_join_to_the_whole(tmp_path, short_segments, codec):
    """B-frames, open groups and variable times: nothing is lost or moved at a seam."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    times = np.cumsum(np.random.default_rng(1).integers(10, 90, 60)).tolist()
    clip(source, codec="libx264", times=times, options={"crf": "10", "x264-params": "open-gop=1"})
    plan = restored(source, target, codec=codec)
    assert len(plan.segments) > 4
    before, after = decoded(source), decoded(target)
    assert [time for _, time in after] == [time for _, time in before]
    assert len(before) == 60
    for (given, _), (found, _) in zip(before, after, strict=True):
        worst = max(np.abs(a.astype(int) - b).max() for a, b in zip(given, found, strict=True))
        assert worst <= (1 if codec == "ffv1" else 60)


def test_shards_and_what_is_missing(tmp_path, short_segments):
    from srcli.jobs.shards import Shard

    source, whole, target = (tmp_path / name for name in ("in.mkv", "whole.mkv", "out.mkv"))
    clip(source)
    restored(source, whole, codec="ffv1")
    folder = None
    for number in (2, 1):
        shard = Shard(number, 2)
        plan = planned(Wishes(source=source, target=target, scale=1, codec="ffv1", shard=shard))
        folder = plan.wishes.folder
        restore_file(plan, identity())
        if number == 2:
            with pytest.raises(InputError, match="segments are missing, the first is 0"):
                join(source, folder, target, replace=False)
    assert not target.exists()
    join(source, folder, target, replace=False)
    found, wanted = decoded(target), decoded(whole)
    assert [time for _, time in found] == [time for _, time in wanted]
    assert all(all(map(np.array_equal, a, b)) for (a, _), (b, _) in zip(found, wanted, strict=True))


def test_going_on_makes_only_what_is_missing(tmp_path, short_segments):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    clip(source)
    wishes = Wishes(source=source, target=target, scale=1, codec="ffv1")
    plan = planned(wishes)
    made, _ = restore_file(plan, identity())
    assert made == 30 and restore_file(planned(wishes), identity())[0] == 0
    gone = sorted(wishes.folder.glob("*.segment"))[1]
    content = gone.read_bytes()
    gone.unlink()
    assert restore_file(planned(wishes), identity())[0] == len(plan.segments[1].times)
    assert gone.read_bytes() == content
    # Other options are another recipe: all is made again.
    dithered = Wishes(source=source, target=target, scale=1, codec="ffv1", dither=True)
    assert restore_file(planned(dithered), identity())[0] == 30


def test_a_damaged_segment_is_not_joined(tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    clip(source)
    plan = planned(Wishes(source=source, target=target, scale=1, codec="ffv1"))
    restore_file(plan, identity())
    (file,) = wishes_files(plan)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="is no whole segment"):
        join(source, plan.wishes.folder, target, replace=False)


def wishes_files(plan):
    return sorted(plan.wishes.folder.glob("*.segment"))


def test_a_full_disk_is_found_early(tmp_path, monkeypatch, short_segments):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    clip(source)
    left = iter([1 << 40, 1 << 40])

    def usage(folder):
        return shutil._ntuple_diskusage(1 << 41, 0, next(left, 1 << 20))

    plan = planned(Wishes(source=source, target=target, scale=1, codec="ffv1"))
    with monkeypatch.context() as patch:
        patch.setattr(segments.shutil, "disk_usage", usage)
        with pytest.raises(OutputError, match="nearly full"):
            restore_file(plan, identity())
    assert len(wishes_files(plan)) == 2
    restore_file(planned(plan.wishes), identity())
    join(source, plan.wishes.folder, target, replace=False)


def test_what_is_refused(tmp_path, ffprobe):
    program = shutil.which("ffmpeg")
    source = tmp_path / "in.mkv"
    clip(source, times=range(0, 400, 40))
    made = {"fields.mkv": ["-vf", "tinterlace=interleave_top,setfield=tff", "-c:v", "libx264"]}
    made["fields.mkv"] += ["-flags", "+ildct"]
    made["alpha.mkv"] = ["-pix_fmt", "yuva420p", "-c:v", "ffv1"]
    made["secret.mp4"] = ["-c:v", "libx264", "-encryption_scheme", "cenc-aes-ctr"]
    made["secret.mp4"] += ["-encryption_key", "0" * 32, "-encryption_kid", "1" * 32]
    made["sound.mkv"] = ["-f", "lavfi", "-i", "sine=440:d=1", "-map", "1"]
    words = {
        "fields.mkv": "bwdif",
        "alpha.mkv": "yuva420p",
        "secret.mp4": "encrypted",
        "sound.mkv": "holds no video",
    }
    for name, options in made.items():
        command = [program, "-v", "error", "-y", "-i", source, *options, tmp_path / name]
        subprocess.run(command, check=True)
        with pytest.raises(InputError, match=words[name]) as raised:
            planned(Wishes(source=tmp_path / name, target=tmp_path / "out.mkv", scale=2))
        assert name in str(raised.value) and raised.value.remedy
    assert not (tmp_path / "out.mkv").exists()


# Dolby Vision: a unit of H.265 that FFmpeg takes for one, with a mapping that changes nothing.
DOLBY_UNIT = bytes.fromhex(
    "7c0119080908406139413c00ffe007ff003fff4000002000001a0000030100000300d000000800000300f3e2c01d80"
)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_dolby_vision_is_refused(av, tmp_path, suffix):
    plain, source = tmp_path / "plain.mp4", tmp_path / f"in.{suffix}"
    options = {"x265-params": "log-level=error"}
    clip(plain, codec="libx265", pixels="yuv420p10le", size=(96, 80), options=options)
    with av.open(str(plain)) as given, av.open(str(source), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                unit = len(DOLBY_UNIT).to_bytes(4, "big") + DOLBY_UNIT
                made = av.Packet(bytes(packet) + unit)
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.is_keyframe, made.stream = packet.is_keyframe, stream
                out.mux(made)
    planned(Wishes(source=plain, target=tmp_path / "out.mkv", scale=2))
    with pytest.raises(InputError, match="is of Dolby Vision") as raised:
        planned(Wishes(source=source, target=tmp_path / "out.mkv", scale=2))
    assert f"-i {source} -c copy -bsf:v dovi_rpu=strip=1" in raised.value.remedy


def test_the_users_word_on_colours(tmp_path, ffprobe):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    clip(source, matrix=2, color_range=0)
    plan = planned(Wishes(source=source, target=target, scale=1))
    assert "guessed by the height" in plan.line
    wanted = Wanted(matrix="bt2020", range="full")
    restored(source, target, wanted=wanted, codec="ffv1")
    (stream,) = ffprobe(target)["streams"]
    assert (stream["color_space"], stream["color_range"]) == ("bt2020nc", "pc")


def test_a_missing_file_is_told(av, srcli, tmp_path):
    code, _, err = srcli("video", str(tmp_path / "none.mkv"), "-o", str(tmp_path / "out.mkv"))
    assert code == 1
    assert "there is no such file" in err
    assert not [*tmp_path.iterdir()]
