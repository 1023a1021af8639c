"""SimpleNet's training: features once, then the heads, a point of the curve per meta-epoch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from station.learn.features.bank import Features
from station.learn.method import Learned, Progress, Task
from station.learn.simplenet.collapse import CollapsedHead
from station.learn.simplenet.curve import Curve
from station.learn.simplenet.deviations import deviations
from station.learn.simplenet.network import Fit, Head, Unfolded, fold
from station.preset import Preset


def learn(task: Task, preset: Preset) -> Learned:
    """Train the heads, going on from the checkpoint if it holds a state."""
    features = Features(task, preset)
    bank = features.bank()
    strewn = features.strewn_bank() if preset.strewn else None
    fit = Fit(bank, preset, task.seed, strewn)
    curve = Curve(task.watched, task.read, features.patches_of, task.seed)

    def resume(state: dict[str, Any]) -> None:
        fit.resume(state["fit"])
        curve.resume(state["curve"])

    task.checkpoint.load(resume)
    _fit(task, fit, curve, preset.meta_epochs)

    def network(heads: list[Head]) -> nn.Module:
        return features.network(CollapsedHead(features.pools, *fold(heads)))

    def without(units: Collection[str]) -> nn.Module:
        kept = bank[features.rows_without(units, bank)]
        spoilt = None if strewn is None else strewn[features.rows_without(units, strewn)]
        fold_fit = Fit(kept, preset, task.seed, spoilt)
        while fold_fit.done < preset.meta_epochs:
            for _ in fold_fit.meta_epoch():
                task.check_stop("stopped while holding out; --resume goes on")
        return network(fold_fit.heads)

    return Learned(
        network=network(fit.heads),
        reference=Unfolded(features.backbone, features.pools, fit.heads),
        without=without,
        backbone=preset.backbone,
        patches=bank.shape[0] * bank.shape[1],
        curve=tuple(curve.points),
        deviations=deviations(bank, fit.heads[0]),
    )


def _fit(task: Task, fit: Fit, curve: Curve, meta_epochs: int) -> None:
    """Train to the last meta-epoch, saving the state after each."""

    def save() -> None:
        task.checkpoint.save({"fit": fit.state(), "curve": curve.state()})

    save()
    while fit.done < meta_epochs:
        steps = []
        for step in fit.meta_epoch():
            steps.append(step)
            task.check_stop(
                f"stopped after {len(curve.points)} of {meta_epochs} meta-epochs, kept in "
                f"{task.checkpoint.folder}; the same command with --resume goes on"
            )
        point = curve.measure(fit.heads, steps)
        save()
        note = f"loss {point.loss:.3f}, on the right side: good {point.good_right:.0%}, "
        note += f"noisy {point.noisy_right:.0%}"
        task.progress(Progress("training", fit.done, meta_epochs, note))
