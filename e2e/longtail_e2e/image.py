"""Builds the operator's image as its Dockerfile says, on a base that is made here: no registry, no daemon.

A registry's base image cannot be had everywhere; Debian's packages can. So debootstrap makes the base, buildah builds
on it, and the result is an archive. All of it stays in the cache, and each command has mounts and processes of its own,
so that none is left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import tomllib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from longtail_e2e.build import cache_directory, locked
from longtail_e2e.contained import contained
from longtail_e2e.debian import IMAGE_PROGRAMS, ensure_programs, program
from longtail_e2e.debian import unavailable as programs_unavailable
from longtail_e2e.errors import BuildError
from longtail_e2e.image_archive import Image
from longtail_e2e.package_index import index_secrets
from longtail_e2e.progress import Progress, silent

__all__ = ["Image", "debian_mirror", "ensure_image", "unavailable"]

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_INPUTS: Final = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "LICENSE")
_SUITE: Final = "bookworm"
_BASE_PACKAGES: Final = "python3"
# What apt leaves behind, and what the public slim images leave out: 100 of 260 MB.
_LITTER: Final = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")
_IMAGES_KEPT: Final = 2
# Of buildah's layers, among them those of builds that nobody will ask for again.
_STORAGE_BYTES: Final = 4 * 2**30
# buildah remembers where it saw which layer in this folder, and has no option for it.
_OWN_FOLDERS: Final = ("/var/lib/containers",)


def unavailable() -> str | None:
    """Say why the image cannot be built on this machine; None when it can."""
    reason = programs_unavailable(IMAGE_PROGRAMS)
    if reason is None and debian_mirror() is None:
        reason = "the image's base is made of Debian's packages, and apt's sources name no mirror of them"
    return reason


def ensure_image(*, progress: Progress = silent) -> Image:
    """Return the image of this checkout, building it first when the cache does not hold it.

    The cache is keyed by the content of what goes in. Debian packages that are missing are installed.

    Raises:
        BuildError: not on this machine, a download failed, or the Dockerfile does; with the last lines.
    """
    reason = unavailable()
    if reason is not None:
        raise BuildError(reason)
    ensure_programs(IMAGE_PROGRAMS, progress=progress)
    version = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    cache = cache_directory() / "image"
    cache.mkdir(parents=True, exist_ok=True)
    built = cache / f"image-{_key()}"
    image = Image(name=f"localhost/longtail:{version}", archive=built / "longtail.tar")
    with locked(cache / "lock", progress=progress):
        if not built.is_dir():
            base = cache / f"base-{_base_key()}"
            if not base.is_dir():
                _make_base(base, progress=progress)
            _build(image, version=version, base=base, progress=progress)
            _prune(cache, keep=(built, base))
        os.utime(built)
    return image


def _key() -> str:
    digest = hashlib.sha256(_base_key().encode())
    sources = (path for path in (_CHECKOUT / "operator").rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in (*(_CHECKOUT / name for name in _INPUTS), *sorted(sources)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_CHECKOUT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _base_key() -> str:
    return hashlib.sha256(repr((_SUITE, _BASE_PACKAGES, _LITTER)).encode()).hexdigest()[:16]


def debian_mirror(apt: Path = Path("/etc/apt")) -> str | None:
    """Return Debian's mirror as apt knows it, from lines of either kind: "URIs: URL", "deb [options] URL suite"."""
    for path in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))):
        if path.suffix in {".list", ".sources"} and path.is_file():
            text = path.read_text()
            found = re.search(r"^(?:URIs:|deb\s(?:\s*\[[^]]*\])?)\s*(\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
            if found:
                return found.group(1)
    return None


def _make_base(target: Path, *, progress: Progress) -> None:
    """Make a root file system of Debian's packages, and pack it."""
    step = "Making the image's base of Debian's packages"
    mirror = debian_mirror()
    assert mirror is not None
    with _whole(target) as partial:
        root = partial / "root"
        options = ("--variant=minbase", f"--include={_BASE_PACKAGES}")
        _run("debootstrap", *options, _SUITE, str(root), mirror, step=step, progress=progress)
        for litter in _LITTER:
            for path in (root / litter).rglob("*"):
                # Folders stay: apt needs its own.
                if path.is_symlink() or not path.is_dir():
                    path.unlink()
        _run("tar", "--numeric-owner", "-C", str(root), "-cf", str(partial / "base.tar"), ".", step=step)
        shutil.rmtree(root)
    progress(step, done=True)


def _build(image: Image, *, version: str, base: Path, progress: Progress) -> None:
    step = "Building the image"
    labels = {"VERSION": version, "REVISION": _git("rev-parse", "HEAD"), "CREATED": _git("log", "-1", "--format=%cI")}
    buildah = _buildah(cache_directory() / "image" / "storage")
    with _whole(image.archive.parent) as partial, index_secrets() as secrets:
        base_file = partial / "Dockerfile"
        base_file.write_text("FROM scratch\nADD base.tar /\n")
        base_name = f"localhost/longtail-base:{base.name.removeprefix('base-')}"
        arguments = {"BASE": base_name, **labels}
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        given += [f"--secret=id={name},src={path}" for name, path in secrets.items()]
        archive = f"docker-archive:{partial / image.archive.name}:{image.name}"
        bud = (*buildah, "bud", "--isolation=chroot", "--layers")
        for command in (
            (*bud, f"--tag={base_name}", f"--file={base_file}", str(base)),
            (*bud, "--pull-never", f"--tag={image.name}", *given, str(_CHECKOUT)),
            (*buildah, "push", image.name, archive),
        ):
            _run(*command, step=step, progress=progress)
        base_file.unlink()
    progress(step, done=True)


def _buildah(storage: Path) -> Sequence[str]:
    """Return the start of a command line; layers are copies where the kernel lays none over each other."""
    for driver in ("overlay", "vfs"):
        folders = (f"--root={storage / driver}", f"--runroot={storage / f'{driver}-run'}")
        buildah = ("buildah", *folders, f"--storage-driver={driver}")
        try:
            _run(*buildah, "info", step="Looking for a storage driver")
        except BuildError as error:
            last = error
        else:
            return buildah
    raise last


def _git(*arguments: str) -> str:
    """Return what git says of the checkout; "unknown" of sources without git."""
    run = subprocess.run(["git", *arguments], cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else "unknown"


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Give a folder that becomes the target when the block ends well, and vanishes when it does not."""
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=target.parent))
    try:
        yield partial
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _run(*command: str, step: str, progress: Progress = silent) -> None:
    """Run a command that can leave nothing behind: it has its own mounts and processes, and they end with it.

    Raises:
        BuildError: with its last lines.
    """
    found = program(command[0])
    assert found is not None, command[0]
    # buildah keeps half-written layers in TMPDIR; root's default, /var/tmp, may be small.
    temporary = cache_directory() / "image" / "partial-layers"
    temporary.mkdir(exist_ok=True)
    lines: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        contained(found, *command[1:], own_folders=_OWN_FOLDERS),
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda out: lines.extend(map(str.rstrip, out)), args=(process.stdout,))
        reader.start()
        try:
            while reader.is_alive():
                reader.join(0.5)
                with contextlib.suppress(IndexError):
                    progress(step, lines[-1][:100])
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            # The kernel then ends all others of the process namespace; the last of them closes the pipe.
            reader.join()
            raise
    if process.returncode != 0:
        said = "\n".join(lines)
        raise BuildError(f"`{command[0]} …` exited with {process.returncode} ({step}):\n{said}")


def _prune(cache: Path, *, keep: Sequence[Path]) -> None:
    """Remove what nobody will ask for again: former images and bases, interrupted builds, too many layers."""
    images = sorted(cache.glob("image-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    keep = (*keep, *images[:_IMAGES_KEPT])
    for path in (*images, *cache.glob("base-*"), *cache.glob("partial-*")):
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)
    storage = cache / "storage"
    if sum(path.lstat().st_size for path in storage.rglob("*")) > _STORAGE_BYTES:
        shutil.rmtree(storage, ignore_errors=True)
