from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from subgenre.config import OptimConfig
from subgenre.models.backbones import musicnn
from subgenre.training import optim


class Blocks(nn.Module):
    """The parts of a transformer backbone, as small as can be."""

    n_blocks = 4

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(4)])
        self.layernorm = nn.LayerNorm(2)

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        return [list(part.parameters()) for part in [self.embeddings, *self.layers, self.layernorm]]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Blocks()
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("tune", "names"),
    [
        ("head", set()),
        ("last:1", {"layers.3.weight", "layers.3.bias", "layernorm.weight", "layernorm.bias"}),
        ("full", {name for name, _ in Blocks().named_parameters()}),
    ],
)
def test_freeze_lets_exactly_the_named_blocks_learn(tune: str, names: set[str]) -> None:
    backbone = Blocks()
    optim.freeze(backbone, tune)
    assert {n for n, p in backbone.named_parameters() if p.requires_grad} == names


@pytest.mark.parametrize("last", [1, 2])
def test_freeze_takes_the_blocks_of_musicnn_as_they_lie_by_depth(last: int) -> None:
    net = musicnn.load()
    optim.freeze(net, f"last:{last}")
    below, front, middle, above = net.parameters_by_depth()
    learn = [*(front if last == 2 else []), *middle, *above]
    assert all(p.requires_grad == any(p is q for q in learn) for p in net.parameters())
    assert len(below) + len(front) + len(middle) + len(above) == len(list(net.parameters()))


def test_rates_fall_towards_the_input_and_biases_do_not_decay() -> None:
    model = Model()
    config = OptimConfig(lr=1.0, backbone_lr=0.1, layer_decay=0.5, weight_decay=0.3)
    built = optim.optimizer(model, nn.Module(), config)
    rate = {p: g["lr"] for g in built.param_groups for p in g["params"]}
    decay = {p: g["weight_decay"] for g in built.param_groups for p in g["params"]}
    assert rate[model.head.weight] == 1.0
    assert rate[model.backbone.layernorm.weight] == 0.1
    for block in range(4):
        assert rate[model.backbone.layers[block].weight] == pytest.approx(0.1 * 0.5 ** (3 - block))
    assert rate[model.backbone.embeddings.weight] == pytest.approx(0.1 * 0.5**4)
    assert decay[model.head.weight] == 0.3
    assert decay[model.head.bias] == 0
    assert sum(len(g["params"]) for g in built.param_groups) == len(list(model.parameters()))


def test_the_schedule_warms_up_and_falls_to_zero() -> None:
    config = OptimConfig(warmup=0.1, schedule="cosine")
    factors = [optim.factor(step, 100, config) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[99] < 0.001
    assert optim.factor(55, 100, config) == pytest.approx(0.5)
    assert {optim.factor(s, 9, OptimConfig()) for s in range(9)} == {1.0}


def test_head_first_keeps_the_backbone_still() -> None:
    model = Model()
    built = optim.optimizer(model, nn.Module(), OptimConfig(lr=1.0))
    before = [p.clone() for p in model.backbone.parameters()]
    optim.set_rate(built, 0.5, head_only=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    head = model.head.weight.clone()
    built.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.backbone.parameters(), strict=True))
    assert not torch.equal(head, model.head.weight)
    assert {g["lr"] for g in built.param_groups if g["part"] == "head"} == {0.5}
