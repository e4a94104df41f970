"""Maze images: cells of exactly `cell` pixels, no margin, walls centred on the cell edges.

Half of a wall's pixels are in each of its two cells, so each cell's vision token sees its own side of it.
"""

from PIL import Image, ImageDraw

from vilasr_jax.tasks.glyphs import glyph
from vilasr_jax.tasks.maze.maze import Maze
from vilasr_jax.tasks.maze.spec import Look


def draw_maze(maze: Maze, cell: int, look: Look, goal: tuple[int, int] | None = None) -> Image.Image:
    """The RGB image, `grid * cell` pixels square; `goal` is the cell of a red diamond."""
    side = maze.grid * cell
    image = Image.new("RGB", (side, side), look.background)
    draw = ImageDraw.Draw(image)
    x, y = centre(maze.start, cell)
    radius = cell // 4
    draw.ellipse((x - radius, y - radius, x + radius - 1, y + radius - 1), fill=look.start)
    for (letter, place), color in zip(maze.letters.items(), look.letters, strict=False):
        shape = glyph(letter, max(1, cell // 14))
        x, y = centre(place, cell)
        draw.bitmap((x - shape.width // 2, y - shape.height // 2), shape, fill=color)
    if goal is not None:
        x, y = centre(goal, cell)
        diamond = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        draw.polygon(diamond, fill=look.letters[0])
    half, rest = look.wall_width // 2, look.wall_width - look.wall_width // 2
    for (x1, y1), (x2, y2) in sorted(maze.walls):
        if x1 != x2:  # neighbours side by side: an upright wall
            edge = x2 * cell
            box = (edge - half, y1 * cell - half, edge + rest - 1, (y1 + 1) * cell + rest - 1)
        else:
            edge = y2 * cell
            box = (x1 * cell - half, edge - half, (x1 + 1) * cell + rest - 1, edge + rest - 1)
        draw.rectangle(box, fill=look.wall)
    draw.rectangle((0, 0, side - 1, side - 1), outline=look.wall, width=max(1, half))
    return image


def centre(cell: tuple[int, int], size: int) -> tuple[int, int]:
    """The pixel centre of a (column, row) cell."""
    return cell[0] * size + size // 2, cell[1] * size + size // 2
