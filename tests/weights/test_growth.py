"""A larger network begins as what a smaller one of its family computes, and then learns on."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from srcli.loading.model import load
from srcli.models.hpinet.network import HpiNet
from srcli.models.registry import get_model
from srcli.weights.training.growth import grown
from srcli.weights.training.growth_tokens import grown_tokens
from srcli.weights.training.phases import at_scale
from srcli.weights.training.starts import begin_from, siblings, start
from srcli.weights.training.tokens import HpiNetTraining

PAIRS = [
    ("lapar-c", "lapar-b", 1),
    ("lapar-b", "lapar-a", 4),
    ("lapar-c", "lapar-a", 3),
    ("awsrn-s", "awsrn-m", 2),
    ("awsrn-m", "awsrn", 3),
    ("awsrn-s", "awsrn", 4),
    ("hpinet-s", "hpinet-m", 2),
    ("hpinet-m", "hpinet-l", 4),
    pytest.param("hpinet-s", "hpinet-l", 3, marks=pytest.mark.slow),
]


def whole(net, side):
    """The network itself; HPINet for all patches at once, which takes a tenth of the time."""
    return HpiNetTraining(net, side, torch.device("cpu")) if isinstance(net, HpiNet) else net


def unequal(name, scale):
    """A network with no tensor of zeros or ones left: nothing is equal by chance."""
    net = get_model(name).build(scale)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize(("small", "large", "scale"), PAIRS)
def test_a_larger_network_begins_as_the_smaller_one_and_learns_everywhere(
    tmp_path, small, large, scale
):
    torch.manual_seed(4)
    sibling, net = unequal(small, scale), get_model(large).build(scale)
    start(net)
    save_file(sibling.state_dict(), tmp_path / "small.safetensors")
    assert begin_from(net, tmp_path / "small.safetensors") == len(net.state_dict())
    side = 28 if large.startswith("hpinet") else 12
    picture = torch.rand(1, 3, side, side)
    form = whole(net, side)
    with torch.no_grad():
        expected = whole(sibling, side)(picture)
        # Layer norms add a small number to the variance, which the wider network sees smaller.
        torch.testing.assert_close(form(picture), expected, atol=1e-4, rtol=0)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(4):  # what adds nothing at first hands a gradient on from the second step
        optimiser.zero_grad()
        (form(picture) - expected - 0.1 * torch.rand_like(expected)).square().mean().backward()
        optimiser.step()
    stands = {
        name
        for (name, new), old in zip(net.named_parameters(), before, strict=True)
        if torch.equal(new, old) and new.requires_grad
    }
    # Matching has no gradient.
    assert {name for name in stands if not name.startswith("cross_match")} == set()


@pytest.mark.parametrize("names", [("hpinet-m", "hpinet-s"), ("hpinet-l", "hpinet-m")])
def test_tokens_do_not_grow_into_less(names):
    held, net = get_model(names[0]).build(2).state_dict(), get_model(names[1]).build(2)
    with pytest.raises(ValueError, match="narrower"):
        grown_tokens(held, net)


def test_tokens_of_another_scale_or_family_do_not_grow():
    net = get_model("hpinet-m").build(2)
    for name, scale in (("hpinet-s", 4), ("lapar-c", 2)):
        with pytest.raises(ValueError, match="no HPINet of this scale"):
            grown_tokens(get_model(name).build(scale).state_dict(), net)


@pytest.mark.parametrize("names", [("lapar-c", "lapar-b"), ("awsrn-s", "awsrn-m")])
def test_growth_refuses_another_scale(names):
    small, large = (
        get_model(name).build(s).state_dict() for name, s in zip(names, (2, 4), strict=True)
    )
    with pytest.raises(ValueError, match="scales differ"):
        grown(small, large)


@pytest.mark.parametrize("names", [("lapar-b", "lapar-c"), ("awsrn-m", "awsrn-s")])
def test_growth_refuses_a_larger_one(names):
    tensors = [get_model(name).build(2).state_dict() for name in names]
    with pytest.raises(ValueError, match=r"does not fit|has no"):
        grown(*tensors)


def test_growth_refuses_other_families():
    large = get_model("lapar-b").build(2).state_dict()
    with pytest.raises(ValueError, match="no LAPAR and no AWSRN"):
        grown({}, large)
    for name in ("awsrn-s", "lapar-c"):
        small = get_model(name).build(2).state_dict()
        other = get_model("awsrn-m" if name == "lapar-c" else "lapar-b").build(2).state_dict()
        with pytest.raises(ValueError, match="scales differ"):
            grown(small, other)


def test_a_smaller_sibling_comes_before_another_scale(tmp_path):
    for name in ("awsrn-m-x4", "awsrn-s-x2", "awsrn-s-x4", "lapar-c-deblock", "lapar-a-x2"):
        (tmp_path / f"{name}.safetensors").touch()
    names = [file.stem for file in siblings("awsrn-m", "clean", 2, [tmp_path])]
    assert names == ["awsrn-s-x2", "awsrn-m-x4", "awsrn-s-x4"]
    names = [file.stem for file in siblings("lapar-a", "deblock", 1, [tmp_path])]
    assert names == ["lapar-c-deblock", "lapar-a-x2"]


OTHER_SCALES = [
    ("lapar-c", 4, 3),
    ("lapar-c", 2, 4),
    ("awsrn-s", 4, 2),
    ("awsrn-sd", 2, 3),
    ("hpinet-s", 2, 3),
]


@pytest.mark.parametrize(("name", "old", "new"), OTHER_SCALES)
def test_what_ships_for_one_scale_begins_well_at_another(tmp_path, photograph, name, old, new):
    """Nearer to the network that ships for that scale than what was drawn, and than its body."""
    held, right = load(name, old).published_network(), load(name, new).published_network()
    save_file(held.state_dict(), tmp_path / "held.safetensors")
    picture = torch.from_numpy(photograph[40:72, 40:72].copy()).permute(2, 0, 1)[None] / 255

    def far(net):
        with torch.no_grad():
            off = whole(net, 32)(picture) - whole(right, 32)(picture)
        return float(off.square().mean())

    torch.manual_seed(5)
    drawn = get_model(name).build(new)
    start(drawn)
    body = get_model(name).build(new)
    state = drawn.state_dict()
    same = {k: v for k, v in held.state_dict().items() if v.shape == state[k].shape}
    body.load_state_dict({**state, **same})
    begun = get_model(name).build(new)
    assert begin_from(begun, tmp_path / "held.safetensors") == len(state)
    assert far(begun) < 0.9 * min(far(drawn), far(body))


@pytest.mark.parametrize("name", ["lapar-c", "awsrn-s", "hpinet-s", "dcls-iso", "fsdn-base"])
def test_what_is_of_the_same_scale_stays_as_it_is(name):
    tensors = get_model(name).build(2).state_dict()
    other = get_model(name).build(2).state_dict()
    assert all(tensors[key] is value for key, value in at_scale(tensors, other, 2).items())
