"""The pipeline: the steps from a decoded picture to the image that is encoded, in their order."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from service.imaging import composite as compositing
from service.imaging import normalize
from service.imaging.containers.container import Container
from service.imaging.decode import decode, decode_lower
from service.imaging.frame import Size
from service.imaging.plan import ExportPlan, ExportWarning, Fit
from service.imaging.profiles import ProfileError


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the steps need in addition to the image; `profile` is None if it is unusable, `base` is of `size`."""

    container: Container
    profile: bytes | None
    size: Size
    plan: ExportPlan
    base: Image.Image | None

    def lower(self) -> Image.Image | None:
        """The lower bytes of 16-bit samples, upright like the image; raises Undecodable."""
        image = decode_lower(self.container)
        return image and normalize.upright(image, self.container.orientation)

    @property
    def fit(self) -> Fit:
        # The ratios differ by rounding only: cover would crop an edge, and contain would add a margin.
        whole = self.plan.frame.keeps_all(self.container.upright_size, self.size)
        return "stretch" if whole else self.plan.fit

    @property
    def keeps_alpha(self) -> bool:
        # A base is opaque, and so is every composite.
        return self.plan.alpha == "keep" and self.base is None


Step = Callable[[Image.Image, Recipe], Image.Image]


def upright(image: Image.Image, recipe: Recipe) -> Image.Image:
    return normalize.upright(image, recipe.container.orientation)


def to_srgb(image: Image.Image, recipe: Recipe) -> Image.Image:
    return normalize.to_srgb(image, recipe.profile, recipe.lower)


def flatten(image: Image.Image, recipe: Recipe) -> Image.Image:
    return image if recipe.keeps_alpha else normalize.flatten(image, recipe.plan.matte)


def resize(image: Image.Image, recipe: Recipe) -> Image.Image:
    return normalize.resize(image, recipe.size, recipe.fit, recipe.plan.matte, recipe.plan.focus)


def composite(image: Image.Image, recipe: Recipe) -> Image.Image:
    return image if recipe.base is None else compositing.composite(image, recipe.base, recipe.plan.share)


STEPS: tuple[Step, ...] = (upright, to_srgb, flatten, resize, composite)


def finish(
    container: Container,
    plan: ExportPlan,
    size: Size,
    base: Image.Image | None = None,
    decoded: Image.Image | None = None,
) -> tuple[Image.Image, tuple[ExportWarning, ...]]:
    """Decode a picture and run the steps: an image of `size`, in RGB, or RGBA if the plan keeps alpha; and warnings.

    `decoded` saves the decoding. Raises Undecodable.
    """
    recipe = Recipe(container, container.profile, size, plan, base)
    fault = container.profile_fault
    image = decode(container) if decoded is None else decoded
    for step in STEPS:
        try:
            image = step(image, recipe)
        except ProfileError:
            fault = fault or "the embedded colour profile is broken or of another kind"
            recipe = replace(recipe, profile=None)
            image = step(image, recipe)
    return image, (ExportWarning("profile_ignored", fault),) if fault else ()
