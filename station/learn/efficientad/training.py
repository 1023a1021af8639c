"""EfficientAD: a student that predicts a teacher's descriptions of good images, and nothing else's.

A frozen teacher describes every place of an image. The student learns to predict that description,
and also what an autoencoder, which sees the image only as a whole, makes of it. Where the two
disagree with the teacher and with each other, the image is unlike the good ones.

`Fit` is the training of any such `Trio`, or of a `Pair` that has no autoencoder; what a step does
follows from the seed and its number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.errors import ModelError
from station.learn.efficientad.pdn import Autoencoder, ImageNetPixels, Size, map_side, pdn
from station.learn.efficientad.quantiles import quantiles

PUBLISHED_STEPS = 70_000
HARD = 0.999  # the student learns from the places where it is worst, above this quantile


class Student(nn.Module):
    """One trunk, and a last convolution whose first `channels` answers predict the teacher.

    As many more, where there are any, predict the autoencoder. Each is computed only where it is
    asked for: half of the published network's outputs would be thrown away in training.
    """

    def __init__(self, layers: nn.Sequential, channels: int) -> None:
        super().__init__()
        self.trunk = layers[:-1]
        last = layers[-1]
        assert isinstance(last, nn.Conv2d)  # noqa: S101
        self.last = last
        self._count = last.out_channels // channels

    def of_teacher(self, trunk: Tensor) -> Tensor:
        """Predict the teacher from the trunk's answer."""
        return self._part(trunk, 0)

    def of_autoencoder(self, trunk: Tensor) -> Tensor:
        """Predict the autoencoder from the trunk's answer."""
        return self._part(trunk, 1)

    def parts(self) -> list[nn.Conv2d]:
        """Return the last convolution as a layer for each that it predicts."""
        made = []
        for weight, bias in self._parts():
            rows, columns = self.last.kernel_size
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], (rows, columns))
            conv.load_state_dict({"weight": weight, "bias": bias})
            made.append(conv)
        return made

    def _part(self, trunk: Tensor, number: int) -> Tensor:
        return F.conv2d(trunk, *self._parts()[number])

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        weight, bias = self.last.weight, self.last.bias
        assert bias is not None  # noqa: S101
        return list(zip(weight.chunk(self._count), bias.chunk(self._count), strict=True))


class Pair(nn.Module):
    """Teacher and student over RGB values of 0 to 255.

    The teacher normalises these as it likes them, the student is given ImageNet's form of them.
    """

    def __init__(self, teacher: nn.Module, student: nn.Sequential, channels: int) -> None:
        super().__init__()
        self.pixels = ImageNetPixels()
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = Student(student, channels)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))
        self.mean: Tensor
        self.deviation: Tensor

    @property
    def learned(self) -> nn.ModuleDict:
        """What a training changes, by name."""
        return nn.ModuleDict({"student": self.student})

    def described(self, images: Tensor) -> Tensor:
        """Let the teacher describe images (N, 3, H, W): (N, C, h, w), every channel normalised."""
        with torch.no_grad():
            return self.normalised(self.raw(images))

    def raw(self, images: Tensor) -> Tensor:
        """Let the teacher describe images, as it does by itself."""
        result: Tensor = self.teacher(images)
        return result

    def normalised(self, raw: Tensor) -> Tensor:
        """Give every channel the mean 0 and deviation 1 that it has over the training images."""
        return (raw - self.mean) / self.deviation

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return where student and teacher differ, (N, h, w)."""
        predicted = self.student.of_teacher(self.student.trunk(self.pixels(images)))
        return (((self.described(images) - predicted) ** 2).mean(1),)


class Trio(Pair):
    """Teacher, student and an autoencoder, which is given the same pixels as the student."""

    def __init__(
        self, teacher: nn.Module, student: nn.Sequential, autoencoder: nn.Module, channels: int
    ) -> None:
        super().__init__(teacher, student, channels)
        self.autoencoder = autoencoder

    @property
    def learned(self) -> nn.ModuleDict:
        """What a training changes, by name."""
        return nn.ModuleDict({"student": self.student, "autoencoder": self.autoencoder})

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return where student and teacher, and student and autoencoder, differ: (N, h, w) each."""
        pixels = self.pixels(images)
        trunk = self.student.trunk(pixels)
        local = (self.described(images) - self.student.of_teacher(trunk)) ** 2
        whole = (self.autoencoder(pixels) - self.student.of_autoencoder(trunk)) ** 2
        return local.mean(1), whole.mean(1)


def published(teacher: nn.Sequential, size: Size, sides: tuple[int, int]) -> Trio:
    """Put an untrained student and autoencoder beside a teacher without padding."""
    channels = int(teacher[-1].out_channels)  # type: ignore[arg-type]
    student = pdn(size, 2 * channels)
    cells = map_side(sides[0]), map_side(sides[1])
    autoencoder = Autoencoder(sides, cells, channels)
    return Trio(nn.Sequential(ImageNetPixels(), *teacher), student, autoencoder, channels)


class Losses(NamedTuple):
    """The terms whose sum is minimised; those without penalty images or autoencoder are zero."""

    hard: Any  # a Tensor in training, a float in reports
    penalty: Any
    autoencoder: Any
    student: Any


def losses(
    pair: Pair, image: Tensor, changed: Tensor, penalty: Tensor | None, target: Tensor | None
) -> Losses:
    """Compute a step's loss terms.

    `changed` is the image with its colours changed, for the autoencoder; `penalty` one from
    elsewhere, which the student must not describe like the teacher; `target` the teacher's
    description of `image`, if known.
    """
    if target is None:
        target = pair.described(image)
    trio = pair if isinstance(pair, Trio) else None
    given = {"image": image, "changed": None if trio is None else changed, "penalty": penalty}
    seen = {name: value for name, value in given.items() if value is not None}
    # One pass for all: a batch of three costs less than three of one.
    pixels = pair.pixels(torch.cat(list(seen.values())))
    trunk = dict(zip(seen, pair.student.trunk(pixels).split(len(image)), strict=True))
    distance = (target - pair.student.of_teacher(trunk["image"])) ** 2
    (limit,) = quantiles(distance, [HARD])
    hard = distance[distance >= limit].mean()
    outside = of_whole = of_student = hard.new_zeros(())
    if penalty is not None:
        outside = (pair.student.of_teacher(trunk["penalty"]) ** 2).mean()
    if trio is not None:
        whole = trio.autoencoder(pixels[len(image) : 2 * len(image)])
        of_whole = ((trio.described(changed) - whole) ** 2).mean()
        of_student = ((whole - trio.student.of_autoencoder(trunk["changed"])) ** 2).mean()
    return Losses(hard, outside, of_whole, of_student)


def change_colours(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast or saturation by up to a fifth, as the autoencoder's images."""
    kind = int(torch.randint(3, (1,), generator=generator))
    factor = 0.8 + 0.4 * float(torch.rand(1, generator=generator))
    grey = to_grey(images)
    towards = [torch.zeros_like(grey), grey.mean((1, 2, 3), keepdim=True), grey][kind]
    return (towards + factor * (images - towards)).clamp(0, 255)


def to_grey(images: Tensor) -> Tensor:
    """Return the luma of (N, 3, H, W) as (N, 1, H, W)."""
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def drawing(*key: int) -> torch.Generator:
    """Return random numbers that follow from these numbers alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


class Plan(NamedTuple):
    """How a student is trained."""

    steps: int = PUBLISHED_STEPS
    batch: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    last_part: float = 0.95  # of the steps, after which the learning rate is a tenth
    bf16: bool = True


class Fit:
    """A training under way; `state` can be saved and resumed.

    `images` is (N, 3, H, W), 0 to 255, of any floating type; `targets` the teacher's raw
    descriptions of them, (N, C, h, w). Both may lie in memory-mapped files. `penalty` gives the
    image from elsewhere for a step. `device` is where the trio is moved and stays.
    """

    def __init__(
        self,
        pair: Pair,
        images: Tensor,
        targets: Tensor | None,
        plan: Plan,
        seed: int,
        penalty: Callable[[int], Tensor] | None = None,
        device: str = "cpu",
    ) -> None:
        self.pair = pair.to(device).to(memory_format=torch.channels_last)
        self.done = 0
        self._images, self._targets, self._penalty = images, targets, penalty
        self._plan, self._seed, self._device = plan, seed, torch.device(device)
        self._optimiser = torch.optim.Adam(
            pair.learned.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )

    @property
    def total(self) -> int:
        """Steps to the end of the training."""
        return self._plan.steps

    def steps(self) -> Iterator[Losses]:
        """Go on to the last step, yielding what each lost."""
        while self.done < self.total:
            yield self.step()

    def step(self) -> Losses:
        """Take one step."""
        plan, number = self._plan, self.done
        late = number >= int(plan.last_part * plan.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = plan.learning_rate * (0.1 if late else 1.0)
        rows = self._rows(number)
        generator = drawing(self._seed, 0, number)
        image = self._images[rows].to(self._device).float()
        image = image.contiguous(memory_format=torch.channels_last)
        changed = change_colours(image, generator)
        penalty = None if self._penalty is None else self._penalty(number).to(self._device)
        target = None
        if self._targets is not None:
            target = self.pair.normalised(self._targets[rows].to(self._device).float())
        self.pair.train()
        self.pair.teacher.eval()
        devices = [0] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            # Dropout draws from torch's own generator.
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            with torch.autocast(self._device.type, torch.bfloat16, enabled=plan.bf16):
                found = losses(self.pair, image, changed, penalty, target)
            self._optimiser.zero_grad()
            sum(found).backward()
        self._optimiser.step()
        self.pair.eval()
        values = Losses(*torch.stack([value.detach().float() for value in found]).tolist())
        if not all(value < float("inf") for value in values):
            raise ModelError(f"step {number + 1}: the loss is no finite number: {values}")
        self.done += 1
        return values

    def _rows(self, number: int) -> Tensor:
        """Return which images a step takes: all once in a new order, then all again."""
        count = len(self._images)
        rows = []
        for place in range(number * self._plan.batch, (number + 1) * self._plan.batch):
            order = drawing(self._seed, 1, place // count)
            rows.append(torch.randperm(count, generator=order)[place % count])
        return torch.stack(rows)

    def state(self) -> dict[str, Any]:
        """Return everything that `resume` needs to go on as if nothing had happened."""
        return {
            "done": self.done,
            "learned": self.pair.learned.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.done = state["done"]
        self.pair.learned.load_state_dict(state["learned"])
        self._optimiser.load_state_dict(state["optimiser"])


# Of each map over held-out good images, its quantiles 0.9, which becomes 0, and 0.995, 0.1.
MapScale = tuple[tuple[float, float], ...]


def measure_maps(pair: Pair, images: Sequence[Tensor]) -> MapScale:
    """Measure the maps of held-out good images, before any padding."""
    with torch.inference_mode():
        maps = [pair.maps(image.to(pair.mean.device)) for image in images]
    found = []
    for name, parts in zip(("teacher", "autoencoder"), zip(*maps, strict=True), strict=False):
        low, high = quantiles(torch.cat([part.flatten() for part in parts]), [0.9, 0.995])
        if not high > low:
            raise ModelError(
                f"the maps of student and {name} are flat: their quantiles are {low} and {high}"
            )
        found.append((low, high))
    return tuple(found)
