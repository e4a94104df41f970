"""What a model family says about images: how they are resized, cut and normalised."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Patch sizes, pixel statistics and limits of a model family's image processor.

    A resized image has sides that are multiples of `factor` pixels. It is cut into patches of `patch_size`
    pixels per side; `merge_size` x `merge_size` patches become one token of the language model.
    """

    patch_size: int  # pixels per side
    merge_size: int  # patches per side that become one token
    temporal_patch_size: int  # frames a patch; a still image is repeated
    mean: tuple[float, float, float]  # of red, green and blue, which run from 0 to 1
    std: tuple[float, float, float]
    min_pixels: int  # area of a resized image, where a job names no limits
    max_pixels: int
    window_size: int | None = None  # pixels per side of the vision tower's windows; None: it has none

    @property
    def factor(self) -> int:
        """Pixels a side of one token of the language model."""
        return self.patch_size * self.merge_size

    @property
    def merge_unit(self) -> int:
        """Patches that become one token."""
        return self.merge_size**2

    @property
    def patch_dim(self) -> int:
        """Values of one flattened patch: channels x frames x rows x columns."""
        return 3 * self.temporal_patch_size * self.patch_size**2
