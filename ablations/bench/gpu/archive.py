"""The finished cells of a study as one file, from which another machine resumes the study."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from pathlib import Path

from ablations.config import UsageError
from ablations.store.files import replacing

MAX_BYTES = 16 * 2**20
"""Largest size of the file."""

LEFT_OUT = ("figures", "tables", "logs", "report.html")
"""What ``report`` writes again, and logs."""


def pack(study: Path, file: Path) -> str:
    """Write the archive of a study; return why it is not written, or an empty text.

    Checkpoints and unfinished cells, whose folders begin with a dot, are left out.
    """
    if not (study / "study.yaml").is_file():
        return ""
    packed = study.with_name(file.name)
    with tarfile.open(packed, "w:xz", preset=1) as archive:
        archive.add(study, arcname=study.name, filter=_kept)
    if (size := packed.stat().st_size) > MAX_BYTES:
        return f"{file.name} is not renewed: it would have {size / 2**20:.0f} MiB"
    with replacing(file) as scratch:
        shutil.copy(packed, scratch)
    return ""


def unpack(file: Path, study: Path) -> None:
    """Unpack the archive of a study, if there is one and the study has not begun here.

    Raises:
        UsageError: damaged archive.
    """
    if (study / "study.yaml").exists() or not file.is_file():
        return
    scratch = study.with_name(f".{study.name}")
    extract(file, scratch)
    shutil.rmtree(study, ignore_errors=True)
    (scratch / study.name).rename(study)
    scratch.rmdir()


def extract(file: Path, folder: Path) -> None:
    """Extract an archive into a folder, which is emptied before; nothing is left of a damaged one.

    Raises:
        UsageError: damaged archive.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
            while archive.fileobj is not None and archive.fileobj.read(2**20):
                pass  # up to the checksum at its end: tarfile takes a damaged header for the end
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        shutil.rmtree(folder, ignore_errors=True)
        problem = str(error).splitlines()[0]
        raise UsageError(f"{file} cannot be unpacked: {problem}; copy or download it again") from error


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(member.name).parts[1:]
    is_hidden = any(part.startswith(".") for part in parts)
    is_checkpoint = bool(parts) and parts[-1].endswith(".ckpt")
    return None if is_hidden or is_checkpoint or (parts and parts[0] in LEFT_OUT) else member
