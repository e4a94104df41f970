"""Benchmark of drawing, compared with bare PIL calls for the same shapes and plates."""

import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from PIL import Image, ImageDraw

from vilasr_jax.drawing.calls import Box, Line
from vilasr_jax.drawing.render import render
from vilasr_jax.drawing.style import get_style
from vilasr_jax.models import DEFAULT_PRESET, family_of, preset


def bench_render(
    sides: tuple[int, ...] = (448, 1036),
    workers: tuple[int, ...] = (1, 2),
    annotations: int = 5,
    style: str = "clear",
    seconds: float = 1.0,
    size: str = DEFAULT_PRESET,
) -> list[dict[str, float]]:
    """Prints and returns drawings per second over all workers, for square images with boxes and lines.

    The sides are rounded as a model of the family of the preset `size` has them.

    Returns:
      One record for each side and number of workers: `side`, `workers`, `annotations`, `drawings_per_second`
      over all workers by the clock, `drawings_per_core_second` (of the time the processor spent, which other
      programs on the machine hardly change), and, by one worker, `pil_per_second` (bare PIL calls) and
      `copies_per_second` (the image only copied), both of processor time too.
    """
    records = []
    unit = family_of(preset(size)).images.factor
    for side in (round(side / unit) * unit for side in sides):
        limits = {name: _rate(side, annotations, name, seconds / 2)[1] for name in ("pil", "copies")}
        for count in workers:
            if count == 1:
                rates = [_rate(side, annotations, style, seconds)]
            else:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(count, mp_context=context) as pool:
                    jobs = [pool.submit(_rate, side, annotations, style, seconds) for _ in range(count)]
                    rates = [job.result() for job in jobs]
            records.append(
                {
                    "side": side,
                    "workers": count,
                    "annotations": annotations,
                    "drawings_per_second": sum(wall for wall, _ in rates),
                    "drawings_per_core_second": sum(core for _, core in rates) / count,
                    "pil_per_second": limits["pil"],
                    "copies_per_second": limits["copies"],
                }
            )
    for r in records:
        print(
            f"{r['side']} x {r['side']}, {r['workers']} workers, {r['annotations']} annotations: "
            f"{r['drawings_per_second']:,.0f} a second by the clock; "
            f"{r['drawings_per_core_second']:,.0f} a second of a core "
            f"(bare PIL calls {r['pil_per_second']:,.0f}, only copied {r['copies_per_second']:,.0f})"
        )
    return records


def _rate(side: int, annotations: int, way: str, seconds: float) -> tuple[float, float]:
    """Pictures a second here, by the clock and by processor time. `way`: a style, pil or copies."""
    rng = random.Random(side)
    base = Image.effect_noise((side, side), 50).convert("RGB")
    sets = [[_call(rng, side, number) for number in range(annotations)] for _ in range(32)]
    plate = Image.new("RGB", (side // 6, side // 20), "white")
    look = get_style(way) if way not in ("pil", "copies") else None

    def draw(calls: list[Box | Line]) -> Image.Image:
        if look:
            return render(base, calls, look)
        return _bare(base, calls, plate) if way == "pil" else base.copy()

    _repeat(draw, sets, 0)  # fonts and plates are cached from here on
    return _repeat(draw, sets, seconds)


def _repeat(
    draw: Callable[[list[Box | Line]], object], sets: list[list[Box | Line]], seconds: float
) -> tuple[float, float]:
    done, start, began = 0, time.perf_counter(), time.process_time()
    while not done or time.perf_counter() - start < seconds:
        for calls in sets:
            draw(calls)
        done += len(sets)
    return done / (time.perf_counter() - start), done / max(time.process_time() - began, 1e-9)


def _bare(base: Image.Image, calls: list[Box | Line], plate: Image.Image) -> Image.Image:
    """The fewest PIL calls that the clear style needs: rims, shapes, heads, dots and ready plates."""
    image = base.copy()
    draw, unit = ImageDraw.Draw(image), base.width / 448
    wide, narrow = round(5 * unit), round(3 * unit)
    for c in calls:
        ends = (c.x1, c.y1, c.x2, c.y2)
        for color, width in (("white", wide), ("red", narrow)):
            if type(c) is Box:
                draw.rectangle(ends, outline=color, width=width)
            else:
                draw.line(ends, color, width)
        if type(c) is Line:
            draw.ellipse((c.x1 - wide, c.y1 - wide, c.x1 + wide, c.y1 + wide), "red", "white")
            draw.polygon([(c.x2, c.y2), (c.x2 - 9, c.y2 - 9), (c.x2 - 9, c.y2 + 9)], "red", "white", 1)
        at = min(c.x1, base.width - plate.width), min(c.y1, base.height - plate.height)
        image.paste(plate, (int(at[0]), int(at[1])))
    return image


def _call(rng: random.Random, side: int, number: int) -> Box | Line:
    x1, x2 = sorted(rng.sample(range(side), 2))
    y1, y2 = sorted(rng.sample(range(side), 2))
    return (Box if number % 2 else Line)(1, f"object {number}", x1, y1, x2, y2)
