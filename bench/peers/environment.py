"""Folders in which a peer is installed: made once, made anew when what is asked for has changed."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

_INSTALLS_S = 900


def install_once(folder: Path, asked_for: Sequence[Path], fill: Callable[[Path], None]) -> None:
    """Have `fill` install into an empty `folder` what these files ask for, unless that is done already."""
    done = folder / ".installed"
    wanted = hashlib.sha256(b"\0".join(file.read_bytes() for file in asked_for)).hexdigest()
    if done.is_file() and done.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fill(folder)
    done.write_text(wanted)


def ran(command: Sequence[str | Path], folder: Path) -> None:
    """Run a command there; RuntimeError with its last words if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_INSTALLS_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise RuntimeError(f"{words[0]}: {failure}") from failure
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{' '.join(words[:3])} ended with {done.returncode}: {' '.join(last)[:300]}")
