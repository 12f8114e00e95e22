"""What of a cohort can be refused before any work begins, quickly: names of folders, rows, the first bytes of files."""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from warpwright.cohort.work import Options, Work
from warpwright.errors import BadInput, first_of
from warpwright.io.image import READABLE

__all__ = ["check_files", "check_options", "check_work", "fault_of_id"]

LONGEST = 200  # bytes of an id: a temporary name made of it must still be a file name (255)
FORBIDDEN = '/\\<>:"|?*'  # separators, and what Windows allows in no name
DEVICES = ("con", "prn", "aux", "nul", *(f"{name}{k}" for name in ("com", "lpt") for k in range(1, 10)))  # Windows' own names
TAKEN = (  # files of the output folder
    "cohort.json", "pairs.csv", "results.csv", "results.parquet", "timings.csv", "index.html", "dataset_description.json",
)  # fmt: skip
SNIFFED = 4096  # bytes that are read of a file
PLANES = (".png", ".jpg", ".jpeg", ".bmp")
NIFTI = (348, 540)  # sizes of the headers of NIfTI-1 and NIfTI-2, the first four bytes
BEGINNINGS = {  # how files of a suffix begin
    (".png",): (b"\x89PNG",),
    (".jpg", ".jpeg"): (b"\xff\xd8\xff",),
    (".bmp",): (b"BM",),
    (".tif", ".tiff"): (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    (".nrrd", ".nhdr"): (b"NRRD",),
    (".mgh", ".mgz"): (b"\0\0\0\1",),
}
TOGETHER = ("labels", "points")  # columns of which a row has both sides or neither


def check_work(work: Work) -> None:
    """Refuse a table that cannot be worked on; every fault of one kind is in one sentence. No file is opened.

    Raises:
        BadInput: an id cannot be the name of a folder, two ids would be one folder, a row has labels or landmarks of one
            image only, or landmarks without a space.
    """
    table = work.table
    bad = [f"{pair.id!r} ({fault})" for pair in work.pairs if (fault := fault_of_id(pair.id))]
    if bad:
        raise BadInput(f"{table}: ids that cannot be the name of a folder: {first_of(bad)}; expected others")
    twice = [repr(name) for name, count in Counter(pair.id for pair in work.pairs).items() if count > 1]
    if twice:
        raise BadInput(f"{table}: pairs that would have one name: {first_of(twice)}; expected images of other names")
    alike = list(_alike(work))
    if alike:
        raise BadInput(
            f"{table}: ids that differ in capitals or accents' spelling only: {first_of(alike)}; expected one of each"
        )
    lonely = [
        f"{pair.id!r} ({what})"
        for pair in work.pairs
        for what in TOGETHER
        if (f"fixed_{what}" in pair.files) != (f"moving_{what}" in pair.files)
    ]
    if lonely:
        raise BadInput(f"{table}: rows with labels or points of one image only: {first_of(lonely)}; expected both or neither")
    if work.options.space is None and any(p.suffix.lower() == ".csv" for pair in work.pairs for p in _points(pair.files)):
        raise BadInput(f"{table}: has points in .csv files, which do not say their space: expected --space ras, lps or voxel")


def check_files(work: Work, numbers: Sequence[int]) -> None:
    """Refuse pairs whose files are not what their suffixes say, and those of a 2-D and a 3-D image.

    Every file is opened once, however many rows name it, and its first bytes are looked at; no image is read, so that only
    the headers of NIfTI and the suffixes of pictures say how many axes there are.

    Args:
        work: the whole work.
        numbers: which of its pairs are looked at.

    Raises:
        BadInput: there are such files; all in one sentence.
    """
    known: dict[tuple[Path, bool], Seen] = {}
    bad: list[str] = []
    mixed: list[str] = []
    for pair in (work.pairs[k] for k in numbers):
        axes: dict[str, int] = {}
        for column, path in pair.files.items():
            key = (path, column.endswith("_points"))
            if key not in known:
                known[key] = _seen(path, image=not key[1])
            if known[key].fault:
                bad.append(f"{pair.id!r} ({column} {path}: {known[key].fault})")
            elif known[key].axes:
                axes[column] = known[key].axes
        if len(set(axes.values())) > 1:
            mixed.append(f"{pair.id!r} ({', '.join(f'{column} {count}-D' for column, count in axes.items())})")
    told = []
    if bad:
        told.append(f"files that cannot be used: {first_of(bad)}; expected whole images and landmarks")
    if mixed:
        told.append(f"pairs of images that differ in their number of axes: {first_of(mixed)}; expected all 2-D or all 3-D")
    if told:
        raise BadInput(f"{work.table}: {'; '.join(told)}")


def check_options(options: Options) -> None:
    """Refuse options that no pair could be registered with; reads the settings and the model.

    Args:
        options: of the work.

    Raises:
        BadInput: as `register` says it.
    """
    from warpwright.geometry import Grid
    from warpwright.product.learned import learned, opened, settings_beside
    from warpwright.product.plan import chosen_device

    chosen_device(options.device)
    choice, folder = options.choice(), opened(options.model)
    learned(
        folder,
        refine=options.refine,
        refine_rate=options.refine_rate,
        refine_field=options.refine_field,
        initial=None,
        choice=choice,
        settings=settings_beside(folder, choice, Grid.regular((32, 32, 32), (1.0, 1.0, 1.0))),
        prompts=None,
        score=options.score,
    )


def fault_of_id(name: str) -> str:
    """Why an id cannot be the name of a folder everywhere; "" if it can."""
    odd = [character for character in name if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    if odd:
        return f"has the control character U+{ord(odd[0]):04X}"
    found = [character for character in name if character in FORBIDDEN]
    if found:
        return f"has the character {found[0]}"
    if len(name.encode()) > LONGEST:
        return f"has {len(name.encode())} bytes, more than {LONGEST}"
    if name.startswith(".") or name.endswith((".", " ")):
        return "begins with a dot" if name.startswith(".") else "ends with a dot or a space"
    if name.casefold().partition(".")[0] in DEVICES or name.casefold() in TAKEN:
        return "is a name that is taken"
    return ""


def _alike(work: Work) -> Iterator[str]:
    """Pairs of ids that are one name where capitals or the spelling of accents make no difference."""
    seen: dict[str, str] = {}
    for pair in work.pairs:
        other = seen.setdefault(unicodedata.normalize("NFC", unicodedata.normalize("NFC", pair.id).casefold()), pair.id)
        if other != pair.id:
            yield f"{other!r} and {pair.id!r}"


def _points(files: Mapping[str, Path]) -> Iterator[Path]:
    return (path for column, path in files.items() if column.endswith("_points"))


class Seen(NamedTuple):
    """What the first bytes of a file tell.

    Args:
        fault: what is wrong with it; "" for nothing.
        axes: how many its image has, 2 or 3; 0 where that is not known.
    """

    fault: str = ""
    axes: int = 0


def _seen(path: Path, *, image: bool) -> Seen:
    """A folder is taken for DICOM."""
    name = path.name.lower()
    try:
        if image and path.is_dir():
            return Seen()
        if image and not name.endswith(READABLE):
            return Seen(f"has no known suffix of an image ({' '.join(READABLE)})")
        with path.open("rb") as file:
            head = file.read(SNIFFED)
    except OSError as error:
        return Seen(f"cannot be opened ({error.strerror})")
    if not head:
        return Seen("is empty")
    if not image:
        return Seen()
    if name.endswith((".gz", ".mgz")):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 352)
        except zlib.error:
            return Seen("is not compressed by gzip")
    fault = _fault_of_head(name, head)
    return Seen(fault) if fault else Seen(axes=_axes(name, head))


def _axes(name: str, head: bytes) -> int:
    """Axes of the image by its header, 0 if that is not looked into; one of a single slice is 2-D, as `read_image` has it."""
    if name.endswith(PLANES):
        return 2
    if not name.endswith((".nii", ".nii.gz")):
        return 0
    order: Literal["little", "big"] = "little" if int.from_bytes(head[:4], "little") in NIFTI else "big"
    begin, size = (40, 2) if int.from_bytes(head[:4], order) == NIFTI[0] else (16, 8)
    count, *extents = (int.from_bytes(head[k : k + size], order) for k in range(begin, begin + 4 * size, size))
    return 3 if count > 2 and extents[2] > 1 else 2


def _fault_of_head(name: str, head: bytes) -> str:
    """What is wrong with a file that begins so; "" for nothing."""
    if name.endswith((".nii", ".nii.gz")):
        sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
        return "" if sizes & set(NIFTI) and len(head) >= NIFTI[0] else "has no header of NIfTI"
    known = [beginnings for suffixes, beginnings in BEGINNINGS.items() if name.endswith(suffixes)]
    return "does not begin as its suffix says" if known and not head.startswith(known[0]) else ""
