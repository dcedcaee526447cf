"""One frame of a video as a picture."""

import subprocess

import numpy as np
import pytest
from PIL import Image

from srcli.errors import UsageError
from srcli.video.stills import frame_of
from srcli.video.y4m import Frame, Writer, parsed


def stream(path, count=3, size=(24, 16)):
    """A Y4M file of grey frames, each lighter than the one before."""
    header = parsed(f"YUV4MPEG2 W{size[0]} H{size[1]} F25:1 C420mpeg2".encode())
    with path.open("wb", buffering=0) as opened:
        writer = Writer(opened, header)
        for number in range(count):
            planes = [np.full(shape, 128, np.uint8) for shape in header.layout.shapes]
            planes[0][...] = 60 + 40 * number
            writer.write(Frame(planes))


def test_frames_are_counted_from_0(tmp_path):
    path = tmp_path / "a.y4m"
    stream(path)
    for number in range(3):
        picture = frame_of(path, number)
        grey = round((60 + 40 * number - 16) / 219 * 255)
        assert picture.color.shape == (16, 24, 3) and picture.color.dtype == np.uint8
        assert np.all(picture.color == grey)
    with pytest.raises(UsageError, match="has 3 frames, and no frame 3"):
        frame_of(path, 3)


def test_compare_shows_a_frame(srcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream(tmp_path / "small.y4m")
    stream(tmp_path / "large.y4m", size=(48, 32))
    Image.new("RGB", (48, 32), (97, 97, 97)).save("truth.png")
    files = ("small.y4m", "large.y4m", "--truth", "truth.png")
    code, out, err = srcli("compare", *files, "--frame", 1, "-o", "a.html")
    assert code == 0, err
    # Grey 100 of limited range is 98 in RGB, one off the truth, which is a picture.
    assert "small.y4m (pixels ×2) 49.45 dB, large.y4m 49.45 dB" in out
    assert "frame 1" in (tmp_path / "a.html").read_text()
    code, _, err = srcli("compare", "small.y4m", "--frame", 9, "-m", "bicubic", "-o", "b.html")
    assert code == 2 and "has 3 frames, and no frame 9" in err


@pytest.mark.services
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_a_frame_of_a_file_is_as_ffmpeg_makes_it(tmp_path, pixels):
    """With frames that are shown in another order than they are coded."""
    pytest.importorskip("av", reason="needs PyAV")
    path, by_ffmpeg = tmp_path / "a.mkv", tmp_path / "f.png"
    made = ["-f", "lavfi", "-i", "testsrc2=s=96x64:d=1:r=25", "-pix_fmt", pixels]
    colours = ["-colorspace", "bt709", "-color_range", "tv"]
    coded = ["-c:v", "libx264", "-bf", "3", "-crf", "5", *colours]
    try:
        subprocess.run(["ffmpeg", "-v", "error", *made, *coded, path], check=True)
    except FileNotFoundError:
        pytest.skip("needs ffmpeg")
    chosen = "select=eq(n\\,7),scale=in_color_matrix=bt709:flags=bicubic+accurate_rnd"
    command = ["ffmpeg", "-v", "error", "-i", path, "-vf", chosen, "-frames:v", "1"]
    subprocess.run([*command, "-pix_fmt", "rgb24", by_ffmpeg], check=True)
    picture = frame_of(path, 7)
    assert picture.bits == (8 if pixels == "yuv420p" else 16)
    wanted = np.asarray(Image.open(by_ffmpeg)).astype(float)
    greatest = 255 if picture.bits == 8 else 65535
    apart = [np.abs(frame_of(path, number).color / greatest * 255 - wanted) for number in (6, 7, 8)]
    # Edges of colours are softer or harder by another filter for chroma.
    assert np.median(apart[1]) < 2
    assert np.argmin([each.mean() for each in apart]) == 1


def test_frames_may_carry_what_pyav_has_no_name_for(srcli, tmp_path):
    """MJPEG of a camera with EXIF in each frame: FFmpeg 8 hands it on beside the pixels."""
    av = pytest.importorskip("av", reason="needs PyAV")
    about = Image.Exif()
    about[0x10F] = "maker"
    Image.new("RGB", (32, 16), (90, 120, 150)).save(tmp_path / "a.jpg", exif=about)
    arguments = ("-m", "lapar-mini", "-s", 2, "--codec", "ffv1")
    code, _, err = srcli("video", tmp_path / "a.jpg", "-o", tmp_path / "a.mkv", *arguments)
    assert code == 0, err
    with av.open(str(tmp_path / "a.mkv")) as made:
        assert [(frame.width, frame.height) for frame in made.decode(video=0)] == [(64, 32)]
