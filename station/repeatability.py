"""How well one sheet's score repeats: the variance split between places, shots, time and the rest.

A score is taken as  mean + pose + shot within pose + time + error,  all random and independent: a
pose is a place above the sheet, a shot one of its offsets, a time one repetition of them all. The
components come from the mean squares of the analysis of variance (Henderson's method I; estimates
below zero are zero). In the terms of a gauge R&R study, poses and shots take the part's place,
error is repeatability (equipment variation), and time takes the appraiser's: reproducibility.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from station.errors import ConfigError
from station.intervals import share
from station.records.sheet import Manifest

FEWEST = 2


class Component(NamedTuple):
    """One source of variance; None where the recipe has too few of its kind to tell."""

    source: str
    gauge_term: str
    degrees_of_freedom: int
    variance: float | None
    deviation: float | None
    share: float | None


class Study(NamedTuple):
    """What repeating one sheet came to."""

    times: int
    verdicts: dict[str, int]
    agreement: float
    agreement_low: float
    mean: float
    deviation: float
    lowest: float
    highest: float
    margin_in_deviations: float | None
    """How far the sheet's mean score lies from the threshold, in its own standard deviations."""
    gauge_share: float | None
    """Of the variance of single scores, the share that is not the sheet's: gauge R&R."""
    components: tuple[Component, ...]


def study(manifests: Sequence[Manifest], threshold: float) -> Study:
    """Evaluate the records of one sheet that was judged again and again."""
    scores = [m.score for m in manifests if m.score is not None]
    if len(manifests) < FEWEST or len(scores) < len(manifests):
        raise ConfigError(f"repeat: at least {FEWEST} complete repetitions are needed")
    poses = [capture.setup for capture in manifests[0].captures]
    table = np.array([[c.score for c in manifest.captures] for manifest in manifests], np.float64)
    found = components(table, poses)
    verdicts = Counter(str(manifest.verdict) for manifest in manifests)
    most = share(max(verdicts.values()), len(manifests))
    deviation = stdev(scores)
    mean = fmean(scores)
    return Study(
        times=len(manifests),
        verdicts=dict(sorted(verdicts.items())),
        agreement=most.count / most.total,
        agreement_low=most.low,
        mean=mean,
        deviation=deviation,
        lowest=min(scores),
        highest=max(scores),
        margin_in_deviations=abs(threshold - mean) / deviation if deviation else None,
        gauge_share=_gauge_share(found),
        components=found,
    )


def components(scores: np.ndarray, poses: Sequence[str]) -> tuple[Component, ...]:
    """Split the variance of scores (times, shots); `poses` names each shot's place.

    Every time has every shot, so the design is balanced but for poses of unequally many shots,
    which `per_pose` allows for.
    """
    times, shots = scores.shape
    of_pose = [[i for i, pose in enumerate(poses) if pose == name] for name in dict.fromkeys(poses)]
    mean = scores.mean()
    by_time, by_shot = scores.mean(axis=1), scores.mean(axis=0)
    by_pose = np.array([scores[:, members].mean() for members in of_pose])
    counts = np.array([len(members) for members in of_pose])

    df_pose, df_shot, df_time = len(of_pose) - 1, shots - len(of_pose), times - 1
    df_error = (times - 1) * (shots - 1)
    residual = scores - by_time[:, None] - by_shot[None, :] + mean
    nested = by_shot - np.repeat(by_pose, counts)[np.argsort(np.concatenate(of_pose))]
    ms_pose = _mean_square(times * (counts * (by_pose - mean) ** 2).sum(), df_pose)
    ms_shot = _mean_square(times * (nested**2).sum(), df_shot)
    ms_time = _mean_square(shots * ((by_time - mean) ** 2).sum(), df_time)
    ms_error = _mean_square((residual**2).sum(), df_error)

    if ms_error is None:  # one shot: what changes from time to time cannot be told apart from error
        ms_time, ms_error, df_time, df_error = None, ms_time, 0, df_time

    per_pose = (shots - (counts**2).sum() / shots) / df_pose if df_pose else 0.0
    below_pose = ms_error if ms_shot is None else ms_shot
    found = (
        ("poses", "part", df_pose, _estimate(ms_pose, below_pose, times * per_pose)),
        ("shots", "part", df_shot, _estimate(ms_shot, ms_error, times)),
        ("time", "reproducibility", df_time, _estimate(ms_time, ms_error, shots)),
        ("error", "repeatability", df_error, ms_error),
    )
    total = sum(variance for *_, variance in found if variance is not None)
    return tuple(
        Component(
            source,
            term,
            degrees,
            variance,
            None if variance is None else variance**0.5,
            variance / total if variance is not None and total else None,
        )
        for source, term, degrees, variance in found
    )


def _mean_square(squares: float, degrees: int) -> float | None:
    return float(squares) / degrees if degrees else None


def _estimate(above: float | None, below: float | None, coefficient: float) -> float | None:
    """Solve one expected mean square for its component."""
    if above is None or below is None:
        return None
    return max(0.0, (above - below) / coefficient)


def _gauge_share(found: Sequence[Component]) -> float | None:
    shares = [c.share for c in found if c.gauge_term != "part" and c.share is not None]
    return sum(shares) if shares else None
