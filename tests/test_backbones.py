"""Backbones against the original's golden outputs and against the hub's own model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from subgenre import backbones
from subgenre.backbones import musicnn
from subgenre.errors import BackboneError, ConfigError
from subgenre.features import MUSICNN_SPEC

GOLDEN = Path(__file__).parent / "data" / "musicnn_golden.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.float32]]:
    with np.load(GOLDEN) as stored:
        return {name: stored[name] for name in stored}


@pytest.fixture(scope="module")
def net() -> musicnn.Musicnn:
    return musicnn.load()


@torch.inference_mode()
def test_musicnn_equals_the_original(net, golden) -> None:
    tokens = net(torch.from_numpy(golden["log_mel"]).reshape(1, 3 * 187, 96))[0]
    np.testing.assert_allclose(tokens[:, 0::2], golden["max_pool"], atol=5e-4, rtol=0)
    np.testing.assert_allclose(tokens[:, 1::2], golden["mean_pool"], atol=5e-4, rtol=0)
    head = musicnn.load_tag_head()
    np.testing.assert_allclose(head.tags(tokens), golden["tags"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        head.penultimate(tokens[:1]), golden["penultimate"], atol=1e-5, rtol=0
    )


@torch.inference_mode()
def test_musicnn_drops_the_remainder_and_pads_a_short_chunk(net) -> None:
    x = torch.rand(2, 626, 96, generator=torch.Generator().manual_seed(0))
    tokens = net(x)
    assert tokens.shape == (2, 3, 1506)
    assert torch.equal(tokens, net(x[:, :561]))
    torch.testing.assert_close(net.pool(tokens, "mean"), tokens.sum(1) / 3)
    short = net.pad(x[:, :100])
    assert short.shape == (2, 187, 96)
    assert torch.equal(short[:, :100], x[:, :100])
    assert not short[:, 100:].any()
    assert net.pad(x) is x or torch.equal(net.pad(x), x)


def test_musicnn_gives_the_same_in_training_and_keeps_its_statistics(net) -> None:
    x = torch.rand(2, 187, 96, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    calm = net(x)
    live = net.train()(x)
    net.eval()
    assert torch.equal(calm, live)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    live.sum().backward()
    assert all(p.grad is not None for p in net.parameters())  # no weight that nothing trains
    net.zero_grad(set_to_none=True)


def test_musicnn_refuses_what_it_can_not_do(net) -> None:
    x = torch.zeros(1, 187, 96)
    for act, word in [
        (lambda: net(x, keep=0.5), "patchout"),
        (lambda: net(x, layer=3), "one block"),
        (lambda: net.use_layer("weighted"), "one block"),
        (lambda: net.pool(torch.zeros(1, 3, 1506), "cls"), "use mean"),
        (lambda: net.prefix(x, 1), "head or full"),
        (lambda: net.suffix(x, 1), "head or full"),
        (lambda: net.set_checkpointing(True), "leave it off"),
    ]:
        with pytest.raises(ConfigError, match=word):
            act()


def test_musicnn_needs_no_file_of_the_user() -> None:
    assert backbones.feature_spec("musicnn") == MUSICNN_SPEC
    net = backbones.load("musicnn")
    again = backbones.build("musicnn", net.config_dict())
    again.load_state_dict(net.state_dict(), strict=True)
    assert (net.hidden_size, net.n_blocks, net.licence) == (1506, 1, "ISC")
    assert sum(len(part) for part in net.parameters_by_depth()) == len(list(net.parameters()))
    with pytest.raises(BackboneError, match="'vgg'"):
        backbones.build("vgg", {})
