"""SimpleNet: a discriminator that tells features of good parts from the same features plus noise.

Levels of a frozen backbone -> features of 3x3 neighbourhoods -> the finest level's grid -> linear
adaptor -> discriminator. `Head` is that in training, on single patches; `fold` writes trained heads
as one affine map in front of the leaky ReLU, which `CollapsedHead` computes level by level.

The default preset does not learn its adaptor but computes it, by whitening. A learned one in front
of noise that fits standardised features stretches these until the noise is small beside them: the
loss is zero and nothing was learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.learn.features.local import mean_of, upsample
from station.learn.simplenet.collapse import SLOPE
from station.preset import ImageBatches, LearnedAdaptor, Preset


class Head(nn.Module):
    """Adaptor and discriminator on patches; positive means good."""

    def __init__(self, mean: Tensor, deviation: Tensor, adaptor: nn.Linear, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.mean: Tensor
        self.deviation: Tensor
        self.adaptor = adaptor
        self.hidden = nn.Linear(adaptor.out_features, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        for layer in (self.hidden, self.out):
            nn.init.xavier_normal_(layer.weight)

    def adapt(self, patches: Tensor) -> Tensor:
        """Standardise and adapt: the space in which the noise is added."""
        result: Tensor = self.adaptor((patches - self.mean).div_(self.deviation))
        return result  # (P, D)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return adaptor and hidden Linear as one of standardised patches, (H, D) and (H)."""
        weight: Tensor = self.hidden.weight @ self.adaptor.weight
        bias: Tensor = self.hidden.bias
        if self.adaptor.bias is not None:
            bias = bias + self.hidden.weight @ self.adaptor.bias
        return weight, bias

    def decide(self, hidden: Tensor) -> Tensor:
        """Tell good from noisy by what the hidden Linear gives, one number per patch."""
        result: Tensor = self.out(F.leaky_relu(self.norm(hidden), SLOPE))[:, 0]
        return result  # (P,)

    def forward(self, patches: Tensor) -> Tensor:
        """Answer for raw patches, (P, D) to (P,)."""
        return self.decide(self.hidden(self.adapt(patches)))


class Space(NamedTuple):
    """Where the heads of one training work: what their features have in common."""

    mean: Tensor
    deviation: Tensor
    adaptor: Tensor | None  # None where it is learned

    @classmethod
    def of(cls, bank: Tensor, preset: Preset) -> Space:
        """Measure the patches of a bank (N, P, D)."""
        size = bank.shape[2]
        if isinstance(preset.adaptor, LearnedAdaptor):
            return cls(torch.zeros(size), torch.ones(size), None)
        patches = bank.flatten(0, 1)
        mean = mean_of(patches).float()
        covariance = torch.zeros(size, size, dtype=torch.float64)
        for part in torch.split(patches, 1 << 15):
            centred = (part.float() - mean).double()
            covariance += centred.T @ centred
        covariance /= len(patches)
        # A channel that never changes in training must not turn a rounding error into a defect.
        deviation = covariance.diagonal().sqrt().clamp_min(1e-3)
        correlation = covariance / deviation[:, None] / deviation
        return cls(mean, deviation.float(), _whitening(correlation, preset.adaptor.strength))

    def standardise(self, patches: Tensor) -> Tensor:
        """Bring every channel to what it is in training: mean 0, deviation 1."""
        return (patches - self.mean).div_(self.deviation)  # (P, D)

    def head(self, preset: Preset) -> Head:
        """Build an untrained head."""
        size = len(self.mean)
        if self.adaptor is None:
            adaptor = nn.Linear(size, size)
            nn.init.xavier_normal_(adaptor.weight)
        else:
            adaptor = nn.Linear(size, size, bias=False)
            adaptor.weight.data = self.adaptor.clone()
            adaptor.requires_grad_(False)
        return Head(self.mean, self.deviation, adaptor, preset.hidden)


class Epoch(NamedTuple):
    """Means over the heads of one step."""

    loss: float
    good_right: float  # share of normal patches on the good side
    noisy_right: float  # share of noisy patches on the other


class Fit:
    """A training under way: heads, optimisers, random numbers. `state` can be saved and resumed.

    The heads differ by what they begin with. All see the same patches and the same noise, which are
    drawn once.
    """

    def __init__(
        self, bank: Tensor, preset: Preset, seed: int, strewn: Tensor | None = None
    ) -> None:
        self._bank = bank  # (N, P, D), any floating type; may lie in a memory-mapped file
        self._strewn = strewn  # the same of places in synthetic defects
        self._preset = preset
        self.done = 0  # meta-epochs
        self._space = Space.of(bank, preset)
        self.heads: list[Head] = []
        for member in range(preset.members):
            torch.manual_seed(seed * 1000 + member)
            self.heads.append(self._space.head(preset))
        self._generator = torch.Generator().manual_seed(seed * 1000)
        self._optimisers = _optimisers(self.heads, preset)

    def meta_epoch(self) -> Iterator[Epoch]:
        """Train for one meta-epoch, yielding after every step what it gave."""
        for head in self.heads:
            head.train()
        for patches in self._batches():
            yield self._step(patches.float())
        for head in self.heads:
            head.eval()
        self.done += 1

    def state(self) -> dict[str, Any]:
        """Return everything that `resume` needs to go on as if nothing had happened."""
        return {
            "done": self.done,
            "heads": [head.state_dict() for head in self.heads],
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "generator": self._generator.get_state(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.done = state["done"]
        for head, saved in zip(self.heads, state["heads"], strict=True):
            head.load_state_dict(saved)
            head.eval()
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self._generator.set_state(state["generator"])

    def _batches(self) -> Iterator[Tensor]:
        """Yield the patches (B, D) of every step of a meta-epoch."""
        batches = self._preset.batches
        if isinstance(batches, ImageBatches):
            for _ in range(batches.epochs):
                order = torch.randperm(len(self._bank), generator=self._generator)
                for images in torch.split(order, batches.size):
                    yield self._bank[images].flatten(0, 1)
            return
        for _ in range(batches.steps):
            yield self._draw(self._bank, batches.size)

    def _draw(self, bank: Tensor, count: int) -> Tensor:
        """Draw patches of all images, (count, D)."""
        patches = bank.flatten(0, 1)
        drawn = torch.randint(len(patches), (count,), generator=self._generator)
        return patches[drawn].float()

    def _noise(self, count: int) -> Tensor:
        """Draw noise for patches in the adapted space, (count, D)."""
        sigmas = torch.tensor(self._preset.noise)
        which = torch.randint(len(sigmas), (count, 1), generator=self._generator)
        width = self.heads[0].adaptor.out_features
        return torch.randn((count, width), generator=self._generator).mul_(sigmas[which])

    def _step(self, patches: Tensor) -> Epoch:
        """Take one step on good patches, the same with noise, and half as many from defects."""
        noise = self._noise(len(patches))
        good = self._space.standardise(patches)
        spoilt = None
        if self._strewn is not None:
            spoilt = self._space.standardise(self._draw(self._strewn, len(patches) // 2))
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        steps = [self._learn(head, good, noise, spoilt) for head in self.heads]
        for optimiser in self._optimisers:
            optimiser.step()
        return Epoch(*(sum(values) / len(values) for values in zip(*steps, strict=True)))

    def _learn(self, head: Head, good: Tensor, noise: Tensor, spoilt: Tensor | None) -> Epoch:
        """Add to the gradients of one head; `good` and `spoilt` are standardised."""
        margin = self._preset.margin
        # Between adaptor and Linear is only the noise, and the Linear takes it apart from the
        # features: theirs go through one matrix instead of two, forth and back.
        affine = head.affine()
        hidden = F.linear(good, *affine)
        parts = [hidden, hidden + F.linear(noise, head.hidden.weight)]
        if spoilt is not None:
            parts.append(F.linear(spoilt, *affine))
        # One batch for all, as the authors do: the batch norm sees good and noisy together.
        answers = head.decide(torch.cat(parts))
        for_good, for_noisy, *others = torch.split(answers, [len(part) for part in parts])
        loss = F.relu(margin - for_good).mean() + F.relu(margin + for_noisy).mean()
        for answer in others:
            loss = loss + self._preset.strewn * F.relu(margin + answer).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        right = (for_good > 0).float().mean(), (for_noisy < 0).float().mean()
        return Epoch(float(loss.detach()), float(right[0]), float(right[1]))


def _optimisers(heads: Sequence[Head], preset: Preset) -> list[torch.optim.Optimizer]:
    discriminators = [
        value
        for head in heads
        for name, value in head.named_parameters()
        if not name.startswith("adaptor")
    ]
    made: list[torch.optim.Optimizer] = [
        torch.optim.Adam(discriminators, lr=preset.learning_rate, weight_decay=preset.weight_decay)
    ]
    if isinstance(preset.adaptor, LearnedAdaptor):
        adaptors = [value for head in heads for value in head.adaptor.parameters()]
        made.append(
            torch.optim.AdamW(
                adaptors,
                lr=preset.adaptor.learning_rate,
                weight_decay=preset.adaptor.weight_decay,
            )
        )
    return made


class Unfolded(nn.Module):
    """A trained network as it was trained: slow, and what every faster form must agree with."""

    def __init__(
        self, backbone: nn.Module, pools: Sequence[nn.Module], heads: Sequence[Head]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pools = nn.ModuleList(pools)
        self.heads = nn.ModuleList(heads)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w)."""
        patches = patch_features(self.backbone(images), list(self.pools))  # (N, h, w, D)
        answers = torch.stack([-head(patches.flatten(0, 2)) for head in self.heads]).mean(0)
        return answers.reshape(patches.shape[:3])[:, None]


class Folded(NamedTuple):
    """The mean of trained heads: -out @ leaky_relu(weight @ features + bias) is the anomaly map."""

    weight: Tensor  # (H, D), float64
    bias: Tensor  # (H,), float64
    out: Tensor  # (H,), float64


def fold(heads: Sequence[Head]) -> Folded:
    """Compose standardisation, adaptor, Linear and batch norm (in use) in float64."""
    parts = [_fold(head) for head in heads]
    out = torch.cat([head.out.weight.detach()[0].double() for head in heads]) / len(heads)
    return Folded(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), out)


def _fold(head: Head) -> tuple[Tensor, Tensor]:
    norm = head.norm
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    hidden, adaptor = head.hidden, head.adaptor
    shift = hidden.bias.double() - norm.running_mean.double()
    if adaptor.bias is not None:
        shift = shift + hidden.weight.double() @ adaptor.bias.double()
    weight = gain[:, None] * (hidden.weight.double() @ adaptor.weight.double())
    weight = weight / head.deviation.double()
    bias = gain * shift + norm.bias.double() - weight @ head.mean.double()
    return weight.detach(), bias.detach()


def patch_features(levels: Sequence[Tensor], pools: Sequence[nn.Module]) -> Tensor:
    """Join the neighbourhood features of all levels to one vector per place of the finest grid."""
    size = levels[0].shape[2:]
    pooled = [pool(level) for level, pool in zip(levels, pools, strict=True)]
    joined = torch.cat([upsample(level, size) for level in pooled], dim=1)  # (N, D, h, w)
    return joined.permute(0, 2, 3, 1)  # (N, h, w, D)


def _whitening(correlation: Tensor, strength: float) -> Tensor:
    """Return the matrix that takes each principal component to its deviation ** (1 - strength).

    It turns back to the channels' own axes: Adam learns better there than along the components.
    """
    variances, components = torch.linalg.eigh(correlation)
    # What hardly varies is mostly rounding; it must not grow without bound.
    variances = variances.clamp_min(1e-4 * float(variances.max()))
    gains = variances.pow(-0.5 * strength)
    adaptor: Tensor = (components * gains) @ components.T
    return adaptor.float()
