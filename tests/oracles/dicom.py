"""DICOM slices, written by ITK."""

from __future__ import annotations

import locale
from pathlib import Path

import SimpleITK as sitk  # noqa: N813


def write_slice(path: Path, image: sitk.Image, series: str, number: int, position: tuple[float, float, float]) -> None:
    """Write one axial slice of a series.

    ITK's writer leaves the whole process in the locale "C", where Python reads files as ASCII: the locale is put back.
    """
    tags = {"0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": series, "0008|0018": f"{series}.{number + 1}"}
    tags |= {"0020|0013": str(number + 1), "0020|0032": "\\".join(map(str, position)), "0020|0037": "1\\0\\0\\0\\1\\0"}
    for key, value in tags.items():
        image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    before = locale.setlocale(locale.LC_ALL)
    try:
        writer.Execute(image)
    finally:
        locale.setlocale(locale.LC_ALL, before)
