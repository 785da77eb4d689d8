"""The built-in backbone's convolutions against PyTorch's own, all filters and all positions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subgenre.audio import features
from subgenre.models.backbones import musicnn
from subgenre.models.backbones.pruned_conv import AT_ONCE, active_filters, frequency_max, time_conv

EVERYTHING = 1e9


@pytest.fixture(params=[(7, 5), (8, 1), (3, 12)], ids=["wide", "even", "whole"])
def conv(request) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(1, 6, request.param).double()


def naive(conv: nn.Conv2d, x: Tensor, gain: Tensor, shift: Tensor, falls: Tensor) -> Tensor:
    k = conv.kernel_size[0]
    y = conv(F.pad(gain * x + shift, (0, 0, (k - 1) // 2, k // 2)))
    return torch.where(falls[:, None], y.amin(dim=3), y.amax(dim=3))


def sizes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2 * AT_ONCE + 1, 1, 20, 12, generator=generator, dtype=torch.float64)
    gain = torch.tensor([-0.7], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    return x, gain, shift, torch.tensor([True, False, False, True, False, True])


@pytest.mark.parametrize("of_input", [False, True])
def test_response_and_gradient_equal_a_plain_convolution(conv, of_input: bool) -> None:
    x, gain, shift, falls = sizes()
    x.requires_grad_(of_input)
    expected = naive(conv, x, gain, shift, falls)
    found = frequency_max(conv, x, gain, shift, falls=falls, reach=EVERYTHING)
    torch.testing.assert_close(found, expected)
    weigh = torch.randn(expected.shape, dtype=torch.float64)
    learnt = [conv.weight, conv.bias, gain, shift, *([x] if of_input else [])]
    theirs = torch.autograd.grad((expected * weigh).sum(), learnt)
    ours = torch.autograd.grad((found * weigh).sum(), learnt)
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        again = frequency_max(conv, x, gain, shift, falls=falls, reach=EVERYTHING)
    torch.testing.assert_close(again, expected)


def test_filters_that_a_relu_stops_are_left_out_without_effect(conv) -> None:
    x, gain, shift, falls = sizes()
    reach = (gain * x + shift).abs().max().item()
    swing = reach * conv.weight.detach().abs().flatten(1).sum(1)
    with torch.no_grad():  # three just can't rise above zero, three just can
        conv.bias.copy_(-swing * torch.tensor([1.001, 1.001, 1.001, 0.2, 0.2, 0.2]))
    assert active_filters(conv, reach).tolist() == [3, 4, 5]
    expected = F.relu(naive(conv, x, gain, shift, falls))
    found = F.relu(frequency_max(conv, x, gain, shift, falls=falls, reach=reach))
    torch.testing.assert_close(found, expected)
    learnt = [conv.weight, conv.bias, gain, shift]
    theirs = torch.autograd.grad(expected.square().sum(), learnt)
    ours = torch.autograd.grad(found.square().sum(), learnt)
    torch.testing.assert_close(ours, theirs)


def test_the_reach_decides_which_filters_are_active() -> None:
    conv = nn.Conv1d(1, 4, 1)
    with torch.no_grad():
        conv.weight[:, 0, 0] = torch.tensor([0.09, 0.11, 1e-9, 1e-6])
        conv.bias.copy_(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    assert active_filters(conv, 10.0).tolist() == [1, 2, 3]
    assert active_filters(conv, 12.0).tolist() == [0, 1, 2, 3]
    with torch.no_grad():  # of what is frozen, the third is its bias in float32, the fourth is not
        assert active_filters(conv, 10.0).tolist() == [1, 3]
        assert not torch.equal(conv(torch.full((1, 1, 1), 10.0))[0, 3], conv.bias[3:])
        assert torch.equal(conv(torch.full((1, 1, 1), 10.0))[0, 2], conv.bias[2:3])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_the_backbone_stays_one_graph() -> None:
    net = musicnn.load()
    x = torch.rand(1, 187, 96, generator=torch.Generator().manual_seed(0))
    found = torch._dynamo.explain(net)(x)
    torch._dynamo.reset()
    assert found.graph_break_count == 0
    whole = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(x), net(x))
    torch._dynamo.reset()


@torch.no_grad()
def decayed() -> nn.Conv1d:
    """Filters: 0 alive, 1 decayed below zero, 2 decayed above it, 3 decayed at exactly zero."""
    conv = nn.Conv1d(4, 4, 7, padding=3)
    conv.weight[1:] = 1e-28
    conv.bias.copy_(torch.tensor([0.0, -0.5, 0.5, 0.0]))
    return conv


def test_decayed_filters_are_left_out_without_effect() -> None:
    conv, x = decayed(), torch.randn(2, 4, 30)
    # above zero, a decayed filter can learn
    assert active_filters(conv, 10.0).tolist() == [0, 2, 3]
    with torch.no_grad():
        assert active_filters(conv, 10.0).tolist() == [0, 3]
        torch.testing.assert_close(time_conv(conv, x, reach=10.0), conv(x))
    expected, found = F.relu(conv(x)), F.relu(time_conv(conv, x, reach=10.0))
    torch.testing.assert_close(found, expected)
    learnt = [conv.weight, conv.bias]
    torch.testing.assert_close(
        torch.autograd.grad((found**2).sum(), learnt),
        torch.autograd.grad((expected**2).sum(), learnt),
    )


def test_a_layer_without_active_filters_gives_its_biases() -> None:
    conv = nn.Conv1d(4, 3, 7, padding=3)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, -1.0)
    x = torch.randn(2, 4, 30)
    torch.testing.assert_close(time_conv(conv, x, reach=10.0), conv(x))


@pytest.mark.slow
def test_the_whole_backbone_has_the_gradient_of_plain_convolutions(monkeypatch) -> None:
    net = musicnn.load().double()
    x = torch.rand(AT_ONCE + 1, 187, 96, generator=torch.Generator().manual_seed(0)).double() * 4
    weigh = torch.linspace(-1, 1, net.hidden_size, dtype=torch.float64)

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        tokens = net(x)
        return tokens, torch.autograd.grad((tokens * weigh).sum(), list(net.parameters()))

    found = run()
    monkeypatch.setattr(
        musicnn, "frequency_max", lambda conv, x, g, s, *, falls, reach: naive(conv, x, g, s, falls)
    )
    monkeypatch.setattr(musicnn, "time_conv", lambda conv, x, *, reach: conv(x))
    torch.testing.assert_close(found, run(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["square", "noise", "silence"])
def test_no_sound_exceeds_the_assumed_reach(kind) -> None:
    time = torch.arange(16_000 * 10) / 16_000
    sound = {
        "square": torch.sign(torch.sin(2 * torch.pi * 440 * time)),
        "noise": torch.rand(len(time), generator=torch.Generator().manual_seed(0)) * 2 - 1,
        "silence": torch.zeros(len(time)),
    }[kind]
    net = musicnn.load()
    x = net.bn_in(features.log_mel(sound[None], net.spec)[:, None])
    assert x.abs().max() < musicnn.REACH_FRONT / 2
