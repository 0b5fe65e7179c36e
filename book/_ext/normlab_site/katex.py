"""KaTeX, which sets the formulas while the site is built: fetched once, proven by its digest, kept in the environment.

No package that pip installs by itself carries script, style sheet and fonts alone, so they are taken out of one that
does, or out of KaTeX's own archive. Both hold the same files. None is committed.
"""

import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.16.40"
# Of the names and contents of all files that are kept: see `digest`.
DIGEST = "f47a54d7537662543473aff54dfc563eebb98ec16813634a92900c096f6d1484"
WHEEL, WHEEL_FOLDER = "djangocms-katex==1.0.2", "djangocms_katex/static/djangocms_katex/vendor/katex/"
ARCHIVE = f"https://registry.npmjs.org/katex/-/katex-{VERSION}.tgz"


# The fonts' other formats are not kept.
OTHER_FORMATS = re.compile(rb',url\([^)]*\) format\("(?:woff|truetype)"\)')


class NotFetched(Exception):
    """Nobody could give KaTeX."""


def folder():
    """The folder with katex.min.js and, below static/katex, what a page loads; fetches them the first time.

    Errors: NotFetched, with a sentence for each source that was asked.
    """
    place = home() / f"katex-{VERSION}"
    if place.is_dir():
        return place
    answers = []
    for name, source in (("PyPI", from_wheel), ("npm", from_archive)):
        try:
            files = source()
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, tarfile.TarError) as error:
            answers.append(f"{name}: {error}")
            continue
        if digest(files) != DIGEST:
            answers.append(f"{name}: the files are not those of KaTeX {VERSION}")
            continue
        keep(files, place)
        return place
    raise NotFetched(
        f"The formulas need KaTeX {VERSION}, which is fetched once and could not be had. " + " ".join(answers)
    )


def home():
    """Where it is kept: in the virtual environment, beside what pip put there, else in the user's cache."""
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "share" / "normlab"
    return user_cache()


def user_cache():
    """Where a user's builds keep what was fetched."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "normlab"


def wanted(name):
    """Whether the site or its builder uses this file; browsers that know no woff2 are gone."""
    return name in ("katex.min.js", "katex.min.css", "LICENSE") or name.endswith(".woff2")


@contextlib.contextmanager
def wheel(requirement, seconds):
    """The wheel of a requirement, open as a zip file; pip fetches it as it fetches everything else.

    Errors: OSError with pip's last words, subprocess.TimeoutExpired, zipfile.BadZipFile.
    """
    with tempfile.TemporaryDirectory(prefix="normlab-") as download:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        ran = subprocess.run(
            [*command, "--dest", download, requirement], capture_output=True, text=True, timeout=seconds
        )
        if ran.returncode:
            raise OSError(ran.stderr.strip().splitlines()[-1])
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as files:
            yield files


def from_wheel():
    """{name: bytes} out of the wheel."""
    with wheel(WHEEL, seconds=120) as files:
        mine = [name for name in files.namelist() if name.startswith(WHEEL_FOLDER)]
        names = {name.removeprefix(WHEEL_FOLDER): name for name in mine}
        return {short: files.read(name) for short, name in names.items() if wanted(short)}


def from_archive():
    """{name: bytes} out of KaTeX's own archive."""
    with urllib.request.urlopen(ARCHIVE, timeout=60) as answer:
        archive = tarfile.open(fileobj=io.BytesIO(answer.read()))
    names = {name.removeprefix("package/").removeprefix("dist/"): name for name in archive.getnames()}
    return {short: archive.extractfile(name).read() for short, name in names.items() if wanted(short)}


def digest(files):
    """One sha256 for {name: bytes}."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return whole.hexdigest()


def keep(files, place):
    """Write {name: bytes} to the folder `place`, all or nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as draft:
        for name, content in files.items():
            path = Path(draft, name) if name.endswith(".js") else Path(draft, "static", "katex", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(OTHER_FORMATS.sub(b"", content) if name.endswith(".css") else content)
        os.chmod(draft, 0o755)
        # Another build may have been faster: a folder that is not empty is replaced by none.
        with contextlib.suppress(OSError):
            os.rename(draft, place)
        # What the context wants to remove at its end.
        os.makedirs(draft, exist_ok=True)
