"""Specification of a set of mazes: size, walls, moves, look and split."""

from dataclasses import dataclass

from vilasr_jax.errors import ConfigError
from vilasr_jax.models.registry import token_sides
from vilasr_jax.tasks.splits import check_split

Color = tuple[int, int, int]

KINDS = ("end", "route")


@dataclass(frozen=True)
class Look:
    """Colours and widths (pixels) of a maze image."""

    background: Color = (255, 255, 255)
    wall: Color = (25, 25, 25)
    wall_width: int = 4
    start: Color = (0, 160, 60)
    letters: tuple[Color, ...] = ((215, 30, 30), (235, 130, 0), (130, 40, 190), (0, 140, 150))


LOOKS: dict[str, Look] = {
    "plain": Look(),
    "thin": Look(wall_width=2),
    "thick": Look(wall_width=6),
    "blueprint": Look(background=(225, 235, 250), wall=(30, 60, 140)),
    "sand": Look(background=(248, 236, 205), wall=(120, 70, 20), start=(20, 130, 90)),
    "night": Look(
        background=(30, 32, 40),
        wall=(235, 235, 225),
        start=(60, 210, 110),
        letters=((255, 110, 110), (255, 190, 80), (200, 140, 255), (90, 220, 230)),
    ),
}


@dataclass(frozen=True)
class MazeSpec:
    """A family of mazes. `moves` is the least and the most number of listed moves."""

    grid: int = 5
    cell: int = 28
    moves: tuple[int, int] = (4, 6)
    wall_density: float = 0.35  # fraction of inner edges that are walls
    decisive: float = 0.9  # fraction of mazes where ignoring the walls ends at another letter
    kinds: tuple[str, ...] = ("end",)  # of question: end, route
    look: str = "plain"
    split: str = "train"

    def __post_init__(self):
        if self.grid < 3:
            raise ConfigError(f"maze grid is {self.grid}; the least is 3 (five cells are marked)")
        sides = [side for side in token_sides() if self.cell % (side // 2) == 0]
        if self.cell < 14 or not sides:
            raise ConfigError(f"maze cell is {self.cell} pixels; it must be a multiple of 14 (28 fits best)")
        if all(self.grid * self.cell % side for side in sides):
            raise ConfigError(
                f"maze of {self.grid} x {self.cell} pixels: its side must be a multiple of "
                f"{' or '.join(map(str, sides))}"
            )
        low, high = self.moves
        if not 2 <= low <= high:
            raise ConfigError(f"maze moves are {tuple(self.moves)}; give (least, most), 2 <= least <= most")
        if not 0.1 <= self.wall_density <= 0.6:
            raise ConfigError(f"maze wall_density is {self.wall_density}; it must be from 0.1 to 0.6")
        if not 0.0 <= self.decisive <= 1.0:
            raise ConfigError(f"maze decisive is {self.decisive}; it must be from 0 to 1")
        if self.look not in LOOKS:
            raise ConfigError(f"maze look {self.look!r} does not exist; there are {', '.join(LOOKS)}")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ConfigError(f"maze kinds are {self.kinds}; choose from {', '.join(KINDS)}")
        check_split("maze", self.split)
