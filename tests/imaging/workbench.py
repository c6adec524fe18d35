"""Run one export job in this process: write its inputs, run it, read the exports."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from service.imaging.formats import Encoding, Format, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.plan import ExportJob, ExportOutcome, ExportPlan, Outcome
from service.workers import worker

TRIO: tuple[Encoding, ...] = (PngEncoding(compression=1), JpegEncoding(), WebpEncoding())


@dataclass(frozen=True)
class Bench:
    folder: Path

    def job(
        self,
        picture: bytes,
        plan: ExportPlan | None = None,
        base: bytes | None = None,
        encodings: tuple[Encoding, ...] = TRIO,
    ) -> ExportJob:
        source = self.folder / "picture"
        source.write_bytes(picture)
        under = self.folder / "base"
        if base is not None:
            under.write_bytes(base)
        targets = []
        for encoding in encodings:
            target = self.folder / f"export.{encoding.format}"
            target.touch()
            targets.append((encoding, str(target)))
        return ExportJob(str(source), None if base is None else str(under), plan or ExportPlan(), tuple(targets))

    def run(
        self,
        picture: bytes,
        plan: ExportPlan | None = None,
        base: bytes | None = None,
        encodings: tuple[Encoding, ...] = TRIO,
    ) -> Outcome:
        return worker.run(self.job(picture, plan, base, encodings))

    def export(
        self,
        picture: bytes,
        plan: ExportPlan | None = None,
        base: bytes | None = None,
        encodings: tuple[Encoding, ...] = TRIO,
    ) -> ExportOutcome:
        """A run that must succeed in every format."""
        outcome = self.run(picture, plan, base, encodings)
        assert isinstance(outcome, ExportOutcome), outcome
        assert [file.format for file in outcome.files] == [encoding.format for encoding in encodings]
        return outcome

    def made(self, name: Format = "png") -> bytes:
        return (self.folder / f"export.{name}").read_bytes()

    def image(self, name: Format = "png") -> Image.Image:
        """An export in RGB or RGBA; a palette is converted."""
        with Image.open(self.folder / f"export.{name}") as image:
            return image.convert("RGBA" if image.has_transparency_data else "RGB")
