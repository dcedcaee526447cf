"""Stages beside each other: order, bounds, repeated frames, errors."""

import itertools
import threading
from contextlib import closing

import numpy as np
import pytest

from srcli.errors import InputError
from srcli.video.stages import AHEAD, BEHIND, Clock, Numbered, Overlap


def frame(value):
    return [np.full((2, 2), value, np.uint8)]


def doubled(frames):
    return [[plane * 2 for plane in planes] for planes in frames]


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_frames_come_in_order_with_what_travels_beside_them(workers, batch):
    values = [1, 1, 2, 3, 3, 3, 4, 1, 1, 5, 6]
    given = (Numbered(frame(value), number) for number, value in enumerate(values))
    clock = Clock()
    overlap = Overlap(restore=doubled, workers=workers, batch=batch, clock=clock)
    found = [(int(f.planes[0][0, 0]), f.tag) for f in overlap(given)]
    assert found == [(2 * value, number) for number, value in enumerate(values)]
    assert clock.frames["repeated"] == 4
    assert "4 frames repeat" in clock.summary(11)


def test_a_repeated_frame_is_computed_once():
    calls = []

    def counted(frames):
        calls.append(len(frames))
        return doubled(frames)

    given = (Numbered(frame(value), None) for value in (1, 1, 1, 2, 2))
    assert len(list(Overlap(restore=counted)(given))) == 5
    assert calls == [1, 1]


def test_no_more_frames_are_read_than_are_needed():
    read = 0

    def endless():
        nonlocal read
        for number in itertools.count():
            read += 1
            yield Numbered(frame(number % 200), number)

    with closing(Overlap(restore=doubled, workers=2)(endless())) as restored:
        for _ in range(5):
            next(restored)
        assert read <= 5 + AHEAD + 2 + BEHIND + 2


@pytest.mark.parametrize("place", ["reading", "network"])
def test_an_error_arrives_after_the_frames_before_it(place):
    def given():
        yield Numbered(frame(1), 0)
        yield Numbered(frame(2), 1)
        if place == "reading":
            raise InputError("x: is damaged", "Make it again.")
        yield Numbered(frame(9), 2)

    def restore(frames):
        if frames[0][0][0, 0] == 9:
            raise InputError("x: is damaged", "Make it again.")
        return doubled(frames)

    done = []
    with pytest.raises(InputError, match="is damaged"):
        for restored in Overlap(restore=restore)(given()):
            done.append(restored.tag)
    assert done == [0, 1]
    assert not [t for t in threading.enumerate() if t.name == "reader" and not t.daemon]
