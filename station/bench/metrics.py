"""`station bench metrics`: how long exact pixel metrics take, and how much memory."""

from __future__ import annotations

import resource
import time

import cv2
import numpy as np

from station.evaluate import region_metrics
from station.evaluate.region_metrics import LabelledMap

DEFECTIVE_SHARE = 0.5


def bench_metrics(maps: int, size: tuple[int, int], seed: int) -> dict[str, float | int | str]:
    """Measure synthetic maps of a size (width, height), half of them with one to three defects."""
    rng = np.random.default_rng(seed)
    images = [_synthetic(rng, size, defective=i < maps * DEFECTIVE_SHARE) for i in range(maps)]
    units = [str(i) for i in range(maps)]
    labels = ["good" if mask is None else "defect" for _, mask in images]
    before_mb = _peak_mb()
    started = time.perf_counter()
    found = region_metrics.measure(images, units, labels, seed)
    seconds = time.perf_counter() - started
    result: dict[str, float | int | str] = {
        "maps": maps,
        "size": f"{size[0]}x{size[1]}",
        "seconds": round(seconds, 2),
        "peak_mb": round(_peak_mb()),
        "peak_mb_before": round(before_mb),
    }
    if found is not None:
        result |= {
            "pixels": found.good_pixels + found.defective_pixels,
            "defective_pixels": found.defective_pixels,
            "regions": len(found.regions),
            "pixel_auroc": found.pixel_auroc.value,
            "au_pro": found.au_pro.value,
        }
    return result


def _synthetic(rng: np.random.Generator, size: tuple[int, int], *, defective: bool) -> LabelledMap:
    width, height = size
    values = rng.standard_normal((height, width), np.float32)
    if not defective:
        return values, None
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(mask, centre, int(rng.integers(2, max(3, width // 8))), 1, -1)
    return values + np.float32(1.5) * mask, mask.astype(bool)


def _peak_mb() -> float:
    """Return the most memory this process has had, in MB; Linux counts in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
