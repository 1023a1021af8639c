"""SimpleNet: a discriminator that tells features of good parts from the same features plus noise.

Features -> 3x3 average pooling -> the finest level's grid -> standardised per channel -> linear
adaptor -> discriminator. `Head` is that in training, on single patches; `FoldedHead` is the same
function on whole feature maps, with everything up to the leaky ReLU as one affine map per level.

The adaptor is not learned but computed: it whitens the standardised features by half. A learned one
in front of the noise stretches the features until the noise is small beside them: the loss is zero
and nothing was learned. Several small heads are averaged: one alone depends much on its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

SLOPE = 0.2  # of the leaky ReLU


@dataclass(frozen=True)
class HeadOptions:
    """The constants of the method; noise and rates suit standardised features."""

    hidden: int = 64
    members: int = 6
    whitening: float = 0.5  # 0 standardises only, 1 makes all directions alike
    noise: tuple[float, ...] = (0.15, 0.3, 0.6, 1.2, 2.4)  # each patch gets one of these deviations
    margin: float = 0.5
    steps: int = 300  # of each member
    batch: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5


class Head(nn.Module):
    """Adaptor and discriminator on patches; positive means good."""

    def __init__(self, mean: Tensor, deviation: Tensor, adaptor: Tensor, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.register_buffer("adaptor", adaptor)
        self.mean: Tensor
        self.deviation: Tensor
        self.adaptor: Tensor
        self.hidden = nn.Linear(len(mean), hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        for layer in (self.hidden, self.out):
            nn.init.xavier_normal_(layer.weight)

    @classmethod
    def on(cls, bank: Tensor, options: HeadOptions) -> Head:
        """Build an untrained head for patches such as these, (P, D)."""
        mean = bank.mean(0, dtype=torch.float32)
        # A channel that never changes in training must not turn a rounding error into a defect.
        deviation = bank.float().std(0).clamp_min(1e-3)
        return cls(mean, deviation, _adaptor(bank, mean, deviation, options), options.hidden)

    def adapt(self, patches: Tensor) -> Tensor:
        """Standardise and adapt: the space in which the noise is added."""
        return ((patches - self.mean) / self.deviation) @ self.adaptor.T  # (P, D)

    def discriminate(self, adapted: Tensor) -> Tensor:
        """Tell good from noisy, one number per patch."""
        hidden = F.leaky_relu(self.norm(self.hidden(adapted)), SLOPE)
        result: Tensor = self.out(hidden)[:, 0]
        return result  # (P,)

    def forward(self, patches: Tensor) -> Tensor:
        """Answer for raw patches, (P, D) to (P,)."""
        return self.discriminate(self.adapt(patches))


class FoldedHead(nn.Module):
    """The mean of trained heads as one 1x1 convolution per level; the output is the anomaly map."""

    def __init__(self, heads: Sequence[Head], channels: tuple[int, ...]) -> None:
        super().__init__()
        folded = [_fold(head) for head in heads]
        weight = torch.cat([part[0] for part in folded])  # (members * hidden, D)
        bias = torch.cat([part[1] for part in folded])
        out = -torch.cat([head.out.weight.detach() for head in heads], dim=1) / len(heads)
        self.maps = nn.ModuleList(nn.Conv2d(c, len(bias), 1, bias=False) for c in channels)
        for conv, part in zip(self.maps, torch.split(weight, list(channels), dim=1), strict=True):
            conv.weight.data = part.float()[:, :, None, None]
        self.maps[0].bias = nn.Parameter(bias.float())
        self.out = nn.Conv2d(len(bias), 1, 1, bias=False)
        self.out.weight.data = out[:, :, None, None]
        self.eval()
        self.requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the raw anomaly map on the finest grid."""
        size = levels[0].shape[2:]
        hidden = self.maps[0](pool(levels[0]))  # (N, hidden, h, w)
        for conv, level in zip(list(self.maps)[1:], levels[1:], strict=True):
            # Bilinear weights add up to one, so the affine map may come first, on the small grid.
            hidden = hidden + upsample(conv(pool(level)), size)
        result: Tensor = self.out(F.leaky_relu(hidden, SLOPE))
        return result  # (N, 1, h, w), high where unlike the training images


def pool(level: Tensor) -> Tensor:
    """Average over the 3x3 neighbourhood, at the border over what there is of it."""
    return F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False)


def upsample(level: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring a coarse level onto the finest grid."""
    return F.interpolate(level, (int(size[0]), int(size[1])), mode="bilinear", align_corners=False)


def patch_features(levels: list[Tensor]) -> Tensor:
    """Join the levels to one vector per place of the finest grid."""
    size = levels[0].shape[2:]
    joined = torch.cat([upsample(pool(level), size) for level in levels], dim=1)  # (N, D, h, w)
    return joined.permute(0, 2, 3, 1)  # (N, h, w, D)


def train_heads(
    bank: Tensor, options: HeadOptions, seed: int, progress: Callable[[int, float], None]
) -> list[Head]:
    """Train all members on patches (P, D); `progress` gets the step of the whole and its loss."""
    heads = []
    for member in range(options.members):
        before = member * options.steps

        def told(step: int, loss: float, before: int = before) -> None:
            progress(before + step, loss)

        heads.append(train_head(bank, options, seed * 1000 + member, told))
    return heads


def train_head(
    bank: Tensor, options: HeadOptions, seed: int, progress: Callable[[int, float], None]
) -> Head:
    """Train one member; the last iterate is the result, never a best one."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = Head.on(bank, options)
    optimiser = torch.optim.Adam(
        head.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    sigmas = torch.tensor(options.noise)
    head.train()
    for step in range(options.steps):
        rows = torch.randint(len(bank), (options.batch,), generator=generator)
        adapted = head.adapt(bank[rows].float())
        which = torch.randint(len(sigmas), (options.batch, 1), generator=generator)
        noise = torch.randn(adapted.shape, generator=generator) * sigmas[which]
        # One batch for both, as the authors do: the batch norm sees good and noisy together.
        answers = head.discriminate(torch.cat([adapted, adapted + noise]))
        good, noisy = answers.chunk(2)
        loss = F.relu(options.margin - good).mean() + F.relu(options.margin + noisy).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        progress(step + 1, float(loss.detach()))
    return head.eval().requires_grad_(False)


def _adaptor(bank: Tensor, mean: Tensor, deviation: Tensor, options: HeadOptions) -> Tensor:
    """Return the matrix that takes each principal component to its deviation ** (1 - whitening).

    It turns back to the channels' own axes: Adam learns better there than along the components.
    """
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in torch.split(bank, 1 << 15):
        standard = ((part.float() - mean) / deviation).double()
        covariance += standard.T @ standard
    variances, components = torch.linalg.eigh(covariance / len(bank))
    # What hardly varies is mostly rounding; it must not grow without bound.
    variances = variances.clamp_min(1e-4 * float(variances.max()))
    gains = variances.pow(-0.5 * options.whitening)
    adaptor: Tensor = (components * gains) @ components.T
    return adaptor.float()


def _fold(head: Head) -> tuple[Tensor, Tensor]:
    """Compose standardisation, adaptor, Linear and batch norm (in use) in float64."""
    norm = head.norm
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = gain[:, None] * (head.hidden.weight.double() @ head.adaptor.double())
    bias = gain * (head.hidden.bias.double() - norm.running_mean.double()) + norm.bias.double()
    weight = weight / head.deviation.double()
    return weight.detach(), (bias - weight @ head.mean.double()).detach()
