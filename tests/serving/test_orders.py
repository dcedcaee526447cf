"""Orders: queries as programs write them, and all others refused in a sentence."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srcli.errors import UnknownModelError
from srcli.serving.orders import file_name, order_of
from srcli.serving.problems import Problem

MODELS = ("lapar-c", "awsrn-sd")


def test_an_order_is_read():
    query = {
        "model": "AWSRN_SD", "scale": "2.5", "input": "photo", "format": "JPG", "quality": "80",
        "deblock": "true", "strip": "1", "page": "2", "name": "a/b.png", "progress": "abcd-1234",
    }  # fmt: skip
    order = order_of("upscale", query, MODELS)
    assert (order.spec.name, order.factor, order.input) == ("awsrn-sd", Fraction(5, 2), "photo")
    assert (order.options.format, order.options.quality, order.options.strip) == ("jpeg", 80, True)
    assert (order.before, order.page, order.name) == (("deblock",), 2, "b.png")


@pytest.mark.parametrize("task", ["upscale", "denoise", "deblock"])
def test_an_order_may_be_empty(task):
    order = order_of(task, {}, MODELS)
    assert (order.spec.name, order.factor) == ("lapar-c", 4 if task == "upscale" else 1)
    assert order.options.format is None


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"size": "4"}, 400, "size: is no parameter"),
        ({"scale": "0"}, 400, "scale: is no factor above 0"),
        ({"scale": "1e99999999"}, 400, "scale: is no factor"),
        ({"scale": "1/0"}, 400, "scale: is no factor"),
        ({"scale": "٤"}, 400, "scale: is no factor"),
        ({"scale": "-2"}, 400, "scale: is no factor"),
        ({"input": "film"}, 400, "input: is no kind"),
        ({"format": "gif"}, 400, "format: is not written here"),
        ({"quality": "101"}, 400, "quality: is no such number"),
        ({"quality": "٤"}, 400, "quality: is no such number"),
        ({"lossless": "perhaps"}, 400, "lossless: is neither true nor false"),
        ({"page": "0"}, 400, "page: is no such number"),
        ({"progress": "short"}, 400, "progress: is no word"),
        ({"model": "lapar-a"}, 404, "lapar-a is not offered here"),
    ],
)
def test_other_orders_are_refused(query, status, words):
    with pytest.raises(Problem) as raised:
        order_of("upscale", query, MODELS)
    assert raised.value.status == status
    assert words in raised.value.problem
    assert raised.value.remedy.endswith(".")


def test_unknown_models_are_told_as_by_the_command():
    with pytest.raises(UnknownModelError, match=r"Did you mean lapar-c\?"):
        order_of("upscale", {"model": "lapar-cc"}, MODELS)


def test_a_scale_is_only_for_enlarging():
    with pytest.raises(Problem, match="scale: nothing is enlarged by denoise"):
        order_of("denoise", {"scale": "2"}, MODELS)
    assert order_of("denoise", {"scale": "1"}, MODELS).factor == 1


@given(st.text())
@example("../../etc/passwd")
@example("C:\\windows\\a.png")
@example('a"\r\nSet-Cookie: b.png')
@example("\0")
@example("..")
def test_names_do_no_harm(text):
    name = file_name(text)
    assert name.isprintable()
    assert 0 < len(name) < 250
    assert not {"/", "\\"} & set(name)
    assert name.strip(". ") == name


def test_usual_names_stay():
    assert file_name("holiday/grüße 1.jpeg") == "grüße 1.jpeg"
    assert file_name("") == "picture"
