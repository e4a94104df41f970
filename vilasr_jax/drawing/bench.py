"""How fast pictures are drawn, beside PIL's own limit (copying the image)."""

import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor

from PIL import Image

from vilasr_jax.drawing.calls import Box, Call, Line
from vilasr_jax.drawing.render import render
from vilasr_jax.drawing.style import get_style


def bench_render(
    sides: tuple[int, ...] = (448, 1036),
    workers: tuple[int, ...] = (1, 2),
    annotations: int = 5,
    style: str = "clear",
    seconds: float = 1.0,
) -> list[dict[str, float]]:
    """Drawings a second over all workers, for square images with boxes and lines on them.

    Returns:
      One record for each side and number of workers: `side`, `workers`, `annotations`, `drawings_per_second`,
      `copies_per_second` (the same image only copied, one worker).
    """
    records = []
    for side in sides:
        copies = _rate(side, annotations, None, seconds / 2)
        for count in workers:
            if count == 1:
                rate = _rate(side, annotations, style, seconds)
            else:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(count, mp_context=context) as pool:
                    jobs = [pool.submit(_rate, side, annotations, style, seconds) for _ in range(count)]
                    rate = sum(job.result() for job in jobs)
            records.append(
                {
                    "side": side,
                    "workers": count,
                    "annotations": annotations,
                    "drawings_per_second": rate,
                    "copies_per_second": copies,
                }
            )
    return records


def _rate(side: int, annotations: int, style: str | None, seconds: float) -> float:
    """Pictures a second in this process; with no style they are only copied."""
    rng = random.Random(side)
    base = Image.effect_noise((side, side), 50).convert("RGB")
    sets = [[_call(rng, side, number) for number in range(annotations)] for _ in range(32)]
    look = get_style(style) if style else None
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for calls in sets:
            if look:
                render(base, calls, look)
            else:
                base.copy()
        done += len(sets)
    return done / (time.perf_counter() - start)


def _call(rng: random.Random, side: int, number: int) -> Call:
    x1, x2 = sorted(rng.sample(range(side), 2))
    y1, y2 = sorted(rng.sample(range(side), 2))
    return (Box if number % 2 else Line)(1, f"object {number}", x1, y1, x2, y2)
