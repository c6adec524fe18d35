"""The pipeline: the steps from a decoded picture, or each frame of an animation, to what is encoded, in their order."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

from PIL import Image

from service.imaging import composite as compositing
from service.imaging import normalize
from service.imaging.compose import composed
from service.imaging.containers.animation import Animation
from service.imaging.containers.container import Container
from service.imaging.decode import decode, decode_lower
from service.imaging.focus import Crop, cover_box
from service.imaging.frame import Size
from service.imaging.plan import ExportPlan, ExportWarning, Fit
from service.imaging.profiles import ProfileError


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the steps need in addition to the image.

    profile  None if there is none, or it is unusable
    base     of `size`
    crop     where `cover` crops
    """

    container: Container
    profile: bytes | None
    size: Size
    plan: ExportPlan
    base: Image.Image | None
    crop: Crop

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
    return normalize.resize(image, recipe.size, recipe.fit, recipe.plan.matte, recipe.crop)


def composite(image: Image.Image, recipe: Recipe) -> Image.Image:
    return image if recipe.base is None else compositing.composite(image, recipe.base, recipe.plan.share)


NORMALIZE: tuple[Step, ...] = (upright, to_srgb, flatten)
FIT: tuple[Step, ...] = (resize, composite)
STEPS = (*NORMALIZE, *FIT)

# Gets the name of a step, and times the code inside its context.
Watch = Callable[[str], AbstractContextManager[object]]

BROKEN = "the embedded colour profile is broken or of another kind"


def finish(
    container: Container,
    plan: ExportPlan,
    size: Size,
    base: Image.Image | None = None,
    decoded: Image.Image | None = None,
    watch: Watch = nullcontext,
) -> tuple[Image.Image, tuple[ExportWarning, ...]]:
    """Decode a picture and run the steps: an image of `size`, in RGB, or RGBA if the plan keeps alpha; and warnings.

    `decoded` saves the decoding. Raises Undecodable.
    """
    recipe = Recipe(container, container.profile, size, plan, base, plan.focus)
    fault = container.profile_fault
    with watch("decode"):
        image = decode(container) if decoded is None else decoded
    for step in STEPS:
        with watch("composite" if step is composite else "normalize"):
            try:
                image = step(image, recipe)
            except ProfileError:
                fault = fault or BROKEN
                recipe = replace(recipe, profile=None)
                image = step(image, recipe)
    return image, _profile_warnings(fault)


def finish_animation(
    container: Container, animation: Animation, plan: ExportPlan, size: Size, base: Image.Image | None = None
) -> tuple[list[Image.Image], tuple[ExportWarning, ...]]:
    """As `finish`, every frame of an animation; all are cropped as the first one is. Raises Undecodable."""
    images, fault = _composed(container, animation)
    recipe = Recipe(container, None, size, plan, base, plan.focus)
    frames = []
    for image in images:
        normal = _through(NORMALIZE, image, recipe)
        recipe = replace(recipe, crop=cover_box(normal, size, recipe.crop))
        frames.append(_through(FIT, normal, recipe))
    _unify_modes(frames)
    return frames, _profile_warnings(fault)


def _composed(container: Container, animation: Animation) -> tuple[Iterator[Image.Image], str | None]:
    """The frames in sRGB, and why their colours are not those that the file declares, if they are not."""
    frames = composed(animation, container.profile)
    try:
        return chain([next(frames)], frames), container.profile_fault
    except ProfileError:
        return composed(animation), container.profile_fault or BROKEN


def _through(steps: Iterable[Step], image: Image.Image, recipe: Recipe) -> Image.Image:
    for step in steps:
        image = step(image, recipe)
    return image


def _unify_modes(frames: list[Image.Image]) -> None:
    """Make all of them RGBA if any is; one by one, because together they may take much memory."""
    if any(image.mode == "RGBA" for image in frames):
        for number, image in enumerate(frames):
            frames[number] = image if image.mode == "RGBA" else image.convert("RGBA")


def _profile_warnings(fault: str | None) -> tuple[ExportWarning, ...]:
    return (ExportWarning("profile_ignored", fault),) if fault else ()
