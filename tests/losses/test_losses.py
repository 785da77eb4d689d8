"""Losses against naive loops and the library's own."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as library
from torch import Tensor

from subgenre.config import LOSSES, LossConfig
from subgenre.errors import ConfigError
from subgenre.losses import Loss, LossResult, build, quadruplet_loss, triplet_loss
from subgenre.losses.cosine import cosine_distances, similarities
from subgenre.losses.mining import batch_triplet_loss, pair_masks

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # vectors, label, track, recording
GENRE = torch.tensor([0, 0, 1])


def distance(left: Tensor, right: Tensor) -> float:
    x, y = left.detach().double().numpy(), right.detach().double().numpy()
    return 1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def draw(n: int, size: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, size, generator=generator, dtype=torch.float64)


@pytest.fixture
def batch() -> Batch:
    """A batch with trash, chunks of one track, and one recording in two subgenres."""
    label = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, -1, -1])
    track = torch.tensor([0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8])
    recording = torch.tensor([0, 0, 1, 2, 3, 0, 0, 5, 6, 7, 8])  # track 4 is track 0's recording
    return draw(len(label)).requires_grad_(), label, track, recording


def valid_triplets(label: Tensor, track: Tensor, recording: Tensor) -> list[tuple[int, int, int]]:
    rows = list(enumerate(zip(label.tolist(), track.tolist(), recording.tolist(), strict=True)))
    return [
        (a, p, n)
        for (a, (la, ta, ra)), (p, (lp, tp, rp)), (n, (ln, _, rn)) in itertools.product(
            rows, repeat=3
        )
        if la >= 0 and la == lp and ta != tp and ra != rp and ln != la and rn != ra
    ]


def mined_naively(
    vectors: Tensor, triplets: list[tuple[int, int, int]], mining: str, margin: float
) -> set[tuple[int, int, int]]:
    d = [[distance(x, y) for y in vectors] for x in vectors]
    if mining == "none":
        return set(triplets)
    if mining == "semihard":
        return {(a, p, n) for a, p, n in triplets if d[a][p] < d[a][n] < d[a][p] + margin}
    found = set()
    for anchor in {a for a, _, _ in triplets}:
        own = [t for t in triplets if t[0] == anchor]
        far = max({p for _, p, _ in own}, key=lambda p: d[anchor][p])
        near = min({n for _, _, n in own}, key=lambda n: d[anchor][n])
        found.add((anchor, far, near))
    return found


def make(name: str, **numbers: object) -> Loss:
    config = LossConfig(name=name, **numbers)  # type: ignore[arg-type]
    return build(config, n_labels=3, embedding_size=6, label_genre=GENRE).double()


def test_triplet_loss_is_the_loop() -> None:
    a, p, n = draw(7, seed=1), draw(7, seed=2), draw(7, seed=3)
    naive = [
        max(0.0, distance(x, y) - distance(x, z) + 0.3) for x, y, z in zip(a, p, n, strict=True)
    ]
    assert triplet_loss(a, p, n, 0.3).item() == pytest.approx(np.mean(naive), abs=1e-12)
    result = make("triplet").explicit(torch.stack([a, p, n], dim=1))
    assert result.value.item() == pytest.approx(np.mean(naive), abs=1e-12)
    assert result.active == pytest.approx(np.mean(np.array(naive) > 0))
    assert result.n == 7


def test_quadruplet_loss_is_the_loop() -> None:
    a, p, n, t = (draw(7, seed=seed) for seed in range(4))
    naive = [
        max(0.0, distance(x, y) - distance(x, z) + 0.2)
        + 0.7 * max(0.0, distance(x, y) - distance(x, w) + 0.5)
        for x, y, z, w in zip(a, p, n, t, strict=True)
    ]
    assert quadruplet_loss(a, p, n, t, trash_weight=0.7).item() == pytest.approx(np.mean(naive))
    result = make("quadruplet", trash_weight=0.7).explicit(torch.stack([a, p, n, t], dim=1))
    assert result.value.item() == pytest.approx(np.mean(naive), abs=1e-12)
    assert result.n == 14
    hinges = [
        distance(x, y) - distance(x, z) + margin > 0
        for others, margin in ((n, 0.2), (t, 0.5))
        for x, y, z in zip(a, p, others, strict=True)
    ]
    assert result.active == pytest.approx(np.mean(hinges))


@pytest.mark.parametrize("case", ["equal", "zero", "tiny"])
@pytest.mark.parametrize("name", ["triplet", "quadruplet", "supcon"])
def test_gradient_is_finite_at_distance_zero(case: str, name: str) -> None:
    scale = {"equal": 1.0, "zero": 0.0, "tiny": 1e-30}[case]
    vectors = (torch.ones(6, 6) * scale).requires_grad_()
    label, rows = torch.tensor([0, 0, 1, 1, 2, -1]), torch.arange(6)
    result = make(name)(vectors, label, rows, rows)
    result.value.backward()
    assert torch.isfinite(result.value)
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    triplet = vectors.detach()[:3].reshape(1, 3, 6).requires_grad_()
    make("triplet").explicit(triplet).value.backward()
    assert triplet.grad is not None
    assert torch.isfinite(triplet.grad).all()


@pytest.mark.parametrize("mining", ["none", "semihard", "hard"])
@pytest.mark.parametrize("seed", range(5))
def test_mining_finds_what_a_naive_search_finds(mining: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = torch.from_numpy(rng.integers(-1, 3, 14))
    track = torch.from_numpy(rng.integers(0, 3, 14)) + 3 * (label + 1)
    recording = torch.from_numpy(np.where(rng.random(14) < 0.2, 0, track.numpy()))
    vectors = draw(14, size=3, seed=seed)
    positive, negative = pair_masks(label, track, recording)
    distances = cosine_distances(vectors)
    found = batch_triplet_loss(distances, positive, negative, margin=0.4, mining=mining)
    expected = mined_naively(vectors, valid_triplets(label, track, recording), mining, 0.4)
    d = distances.tolist()
    hinges = [max(0.0, d[a][p] - d[a][n] + 0.4) for a, p, n in expected]
    assert found.n == len(expected)
    assert found.value.item() == pytest.approx(sum(hinges) / max(1, len(hinges)), abs=1e-12)


@pytest.mark.parametrize("mining", ["none", "semihard", "hard"])
def test_batch_triplet_loss_and_its_gradient_are_the_loop(batch: Batch, mining: str) -> None:
    vectors, label, track, recording = batch
    result = make("triplet", mining=mining, margin=0.4)(vectors, label, track, recording)
    triplets = sorted(mined_naively(vectors, valid_triplets(label, track, recording), mining, 0.4))
    a, p, n = (list(column) for column in zip(*triplets, strict=True))
    naive = triplet_loss(vectors[a], vectors[p], vectors[n], 0.4)
    assert result.n == len(triplets)
    assert result.value.item() == pytest.approx(naive.item(), abs=1e-12)
    ours, theirs = (torch.autograd.grad(x, vectors)[0] for x in (result.value, naive))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["supcon", "proxy_anchor"])
@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_every_loss_reports_the_active_share_of_all_triplets(
    batch: Batch, name: str, margin: float
) -> None:
    found, plain = (make(loss, margin=margin)(*batch) for loss in (name, "triplet"))
    assert (found.n, found.active) == (plain.n, plain.active)
    assert 0 < found.active < 1


@pytest.mark.slow
def test_active_share_of_a_large_batch_is_close_to_that_of_all_triplets() -> None:
    generator = torch.Generator().manual_seed(4)
    label = torch.arange(3).repeat_interleave(200)
    track = torch.arange(300).repeat_interleave(2)
    centres = torch.randn(3, 8, generator=generator)
    vectors = centres[label] + torch.randn(600, 8, generator=generator)
    found, whole = (
        make(name, margin=0.2)(vectors, label, track, track) for name in ("supcon", "triplet")
    )
    assert found.n == whole.n
    assert 0.05 < whole.active < 0.95
    assert found.active == pytest.approx(whole.active, abs=0.03)
    assert found.active != whole.active  # for some anchors, not for all


def test_the_size_of_a_block_does_not_change_the_loss(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("triplet")(*batch)
    monkeypatch.setattr("subgenre.losses.mining._BLOCK_NUMBERS", 25)
    blocks = make("triplet")(*batch)
    assert (blocks.n, blocks.active) == (whole.n, whole.active)
    assert blocks.value.item() == pytest.approx(whole.value.item(), abs=1e-12)


@pytest.mark.parametrize("with_trash", [True, False])
def test_batch_quadruplet_loss_is_the_loop(batch: Batch, with_trash: bool) -> None:
    n_rows = 11 if with_trash else 9
    vectors, label, track, recording = (column[:n_rows] for column in batch)
    result = make("quadruplet", trash_weight=0.5)(vectors, label, track, recording)
    near, far = [], []
    for a, p, n in valid_triplets(label, track, recording):
        gap = distance(vectors[a], vectors[p]) - distance(vectors[a], vectors[n])
        if label[n] >= 0:
            near.append(max(0.0, gap + 0.2))
        if label[n] < 0 if with_trash else GENRE[label[n]] != GENRE[label[a]]:
            far.append(max(0.0, gap + 0.5))
    assert result.value.item() == pytest.approx(np.mean(near) + 0.5 * np.mean(far), abs=1e-12)
    assert result.n == len(near) + len(far)
    active = sum(x > 0 for x in near + far) / len(near + far)
    assert result.active == pytest.approx(active)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0], [-1, -1, -1]])
def test_no_pair_gives_a_zero_tied_to_the_graph(name: str, labels: list[int]) -> None:
    vectors = draw(3).requires_grad_()
    rows = torch.zeros(3, dtype=torch.long) if labels[0] == 0 == labels[2] else torch.arange(3)
    result: LossResult = make(name)(vectors, torch.tensor(labels), rows, rows)
    result.value.backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert result.active == 0.0
    if "proxy" not in name and name not in ("norm_softmax", "arcface", "multi_similarity"):
        assert result.value.item() == 0.0


@pytest.mark.parametrize("name", ["supcon", "multi_similarity"])
def test_pair_losses_are_the_librarys(name: str) -> None:
    vectors, label = draw(9).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3])
    rows = torch.arange(9)  # the last row has no positive
    inner = {
        "supcon": library.SupConLoss(temperature=0.1),
        "multi_similarity": library.MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5),
    }[name]
    result, expected = make(name)(vectors, label, rows, rows), inner(vectors, label)
    assert result.value.item() == pytest.approx(expected.item(), abs=1e-9)
    assert result.n == len(valid_triplets(label, rows, rows))
    ours, theirs = (torch.autograd.grad(value, vectors)[0] for value in (result.value, expected))
    assert torch.allclose(ours, theirs, atol=1e-9)


def test_the_gradient_of_similarities_is_that_of_the_plain_product() -> None:
    """Also where the two triangles have different weights."""
    vectors, weight = draw(7).requires_grad_(), torch.rand(7, 7, dtype=torch.float64)
    (one,) = torch.autograd.grad((similarities(vectors) * weight).sum(), vectors)
    normed = torch.nn.functional.normalize(vectors, dim=1)
    (two,) = torch.autograd.grad(((normed @ normed.T) * weight).sum(), vectors)
    assert torch.allclose(one, two, rtol=1e-12)
    assert torch.autograd.gradcheck(similarities, (vectors,))


def test_supcon_leaves_out_pairs_of_one_track_and_takes_trash_as_negative(batch: Batch) -> None:
    vectors, label, track, recording = batch
    positive, negative = pair_masks(label, track, recording)
    similarity = (1 - cosine_distances(vectors.detach())).numpy() / 0.1
    losses = []
    for i in range(len(label)):
        own, others = positive[i].numpy(), negative[i].numpy()
        if own.any():
            total = np.log(np.exp(similarity[i][own | others]).sum())
            losses.append(float(np.mean(total - similarity[i][own])))
    result = make("supcon")(*batch)
    assert not positive[0, 1]
    assert negative[0, 9]
    assert result.value.item() == pytest.approx(np.mean(losses), abs=1e-9)


@pytest.mark.parametrize("name", ["proxy_anchor", "norm_softmax", "arcface"])
def test_proxy_losses_are_the_librarys_and_learn(name: str) -> None:
    vectors, label = draw(9).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, -1])
    rows = torch.arange(9)
    loss = make(name)
    inner = {
        "proxy_anchor": library.ProxyAnchorLoss(3, 6, margin=0.1, alpha=32.0),
        "norm_softmax": library.NormalizedSoftmaxLoss(3, 6, temperature=0.1),
        "arcface": library.ArcFaceLoss(3, 6, margin=28.6, scale=32.0),
    }[name].double()
    inner.load_state_dict({k.removeprefix("inner."): v for k, v in loss.state_dict().items()})
    result = loss(vectors, label, rows, rows)
    # the library keeps its proxies in single precision
    normed = torch.nn.functional.normalize(vectors[:8], dim=1)
    assert result.value.item() == pytest.approx(inner(normed, label[:8]).item(), rel=1e-5)
    result.value.backward()
    (proxies,) = loss.parameters()
    assert proxies.grad is not None
    assert proxies.grad.abs().sum() > 0
    assert vectors.grad is not None
    assert not vectors.grad[8].any()


def test_proxies_start_from_the_seed_and_leave_torchs_own_alone() -> None:
    config = LossConfig(name="arcface")
    state = torch.get_rng_state()
    one, same, other = (
        build(config, n_labels=3, embedding_size=4, label_genre=GENRE, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(one["inner.W"], same["inner.W"])
    assert not torch.equal(one["inner.W"], other["inner.W"])
    assert torch.equal(state, torch.get_rng_state())


def test_a_nan_vector_makes_the_loss_nan(batch: Batch) -> None:
    vectors = batch[0].detach().clone()
    vectors[3] = torch.nan
    for name in ("triplet", "quadruplet", "supcon"):
        assert torch.isnan(make(name)(vectors, *batch[1:]).value)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_autocast_does_not_change_the_loss(batch: Batch, name: str) -> None:
    vectors, *columns = batch
    exact = make(name)(vectors, *columns).value.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = make(name).float()(vectors.detach().float(), *columns).value
    assert found.item() == pytest.approx(exact, rel=1e-5)  # bfloat16 has steps of 1e-2


def test_losses_over_whole_batches_refuse_drawn_triplets() -> None:
    for name in set(LOSSES) - {"triplet", "quadruplet"}:
        with pytest.raises(ConfigError, match=f"'{name}' compares whole batches"):
            make(name).explicit(torch.zeros(2, 3, 6))


def test_a_triplet_on_the_margin_is_not_active() -> None:
    same = torch.ones(2, 4, 6)
    assert make("triplet", margin=0.0).explicit(same[:, :3]).active == 0.0
    result = make("quadruplet", negative_margin=0.0, trash_margin=0.5).explicit(same)
    assert result.active == 0.5
