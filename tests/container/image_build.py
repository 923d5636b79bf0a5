"""Builds the image of ``Dockerfile_llamacpp`` where no container engine runs: buildah as root, with
chroot isolation, on a base image made by debootstrap.

Registries are reached as this machine is set up to: debootstrap's mirror is TEST_CONTAINER_MIRROR,
if that is set, and what ``pip config list`` says goes into the build as a mounted file, never into
a layer. A folder TEST_CONTAINER_WHEELS with a wheel of llama-cpp-python saves compiling it. As a
program it builds and says what came out, with build arguments:
``python tests/container/image_build.py [NAME=VALUE ...]``.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

REPOSITORY = Path(__file__).parents[2]
IMAGE = "localhost/tgi-llama-test"
BASE = "localhost/tgi-llama-test-base"

_CERTIFICATES = "/run/host-certificates.crt"
"""Where the build finds this machine's certificates. Not where Debian keeps its own: installing
``ca-certificates`` replaces that file, which a mounted one does not allow."""

_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)
"""Of the base image, as in Debian's slim images."""


@attrs.frozen
class Buildah:
    """buildah with storage of its own under one folder."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [
            "buildah",
            *("--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")),
            *("--storage-driver", _storage_driver()),
            *arguments,
        ]

    def run(self, *arguments: str) -> str:
        """Returns what it writes to standard output; raises CalledProcessError."""
        done = subprocess.run(
            self.command(*arguments), check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def has_image(self, name: str) -> bool:
        command = self.command("inspect", "--type", "image", name)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def config(self, name: str) -> dict[str, object]:
        """The image's configuration: Env, User, Entrypoint, Healthcheck and so on."""
        inspected = json.loads(self.run("inspect", "--type", "image", name))
        config: dict[str, object] = inspected["Docker"]["config"]
        return config


def _storage_driver() -> str:
    """``vfs`` works everywhere, but copies the whole file system at every step."""
    known = Path("/proc/filesystems").read_text().split()
    return "overlay" if "overlay" in known else "vfs"


def folder() -> Path:
    """Where root file system, images and containers are kept between runs."""
    default = Path.home() / ".cache" / "tgi-llama-container"
    return Path(os.environ.get("TEST_CONTAINER_FOLDER", default))


def make_base_image(buildah: Buildah) -> None:
    """Debian 12 without anything that Debian's slim image does not have, under the name BASE."""
    if buildah.has_image(BASE):
        return
    root = buildah.folder / "rootfs"
    if not (root / "etc/debian_version").exists():
        mirror = os.environ.get("TEST_CONTAINER_MIRROR")
        subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                "bookworm",
                str(root),
                *([mirror] if mirror else []),
            ],
            check=True,
        )
    container = buildah.run("from", "scratch")
    copied = buildah.run("mount", container)
    left_out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
    packed = subprocess.Popen(
        ["tar", "-C", str(root), *left_out, "-c", "."], stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-C", copied, "-x"], check=True, stdin=packed.stdout)
    assert packed.wait() == 0
    buildah.run("config", "--cmd", "bash", container)
    buildah.run("commit", "--rm", container, BASE)


def build(
    buildah: Buildah,
    arguments: Mapping[str, str],
    name: str = IMAGE,
    context: str = str(REPOSITORY),
) -> str:
    """The image for the build arguments, under that name, which it returns; ``context`` is a folder
    or the address of a git repository. Steps that were run before with the same arguments and files
    are taken from earlier builds."""
    make_base_image(buildah)
    given = {
        "BASE_IMAGE": BASE,
        # buildah 1.28 finds out which stages are needed before it reads the defaults of arguments.
        "llamacpp_cuda": "OFF",
        "with_converter": "ON",
        **arguments,
    }
    options = [f"--build-arg={name}={value}" for name, value in given.items()]
    mounts = [f"--volume={source}:{target}:ro" for source, target in _mounts(buildah.folder)]
    wheels = os.environ.get("TEST_CONTAINER_WHEELS")
    if wheels:
        mounts.append(f"--volume={wheels}:/opt/build/wheels:ro")
    subprocess.run(
        buildah.command(
            *("build", "--isolation", "chroot", "--network", "host", "--format", "docker"),
            *("--layers", "--pull=never", "--file", "Dockerfile_llamacpp", "--tag", name),
            *options,
            *mounts,
            context,
        ),
        check=True,
        cwd=buildah.folder,  # nothing but the context may say where the Dockerfile is
    )
    return name


def _mounts(scratch: Path) -> list[tuple[Path, str]]:
    """Files of this machine and where the build's steps see them: pip's configuration, and the
    folders and certificates that it names."""
    settings = _pip_settings()
    certificates = settings.pop("cert", None)
    mounts = []
    for value in " ".join(settings.values()).split():
        path = Path(value.removeprefix("file://"))
        if value.startswith("file://"):
            path = path.parent  # an index on disk points to files beside it
        if path.is_absolute() and path.exists():
            mounts.append((path, str(path)))
    if certificates is not None:
        settings["cert"] = _CERTIFICATES
        mounts.append((Path(certificates).resolve(), _CERTIFICATES))
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    configuration = scratch / "pip.conf"
    configuration.write_text("[global]\n" + lines)
    return [*mounts, (configuration, "/etc/pip.conf")]


def _pip_settings() -> dict[str, str]:
    """What pip is told by this machine's files and variables, in their order of precedence."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    pairs = [line.partition("=") for line in listed.splitlines()]
    ordered = sorted(pairs, key=lambda pair: pair[0].startswith(":env:"))  # variables win
    return {name.rpartition(".")[2]: ast.literal_eval(value) for name, _, value in ordered}


def main(words: Sequence[str]) -> None:
    buildah = Buildah(folder())
    buildah.folder.mkdir(parents=True, exist_ok=True)
    arguments = dict(word.split("=", 1) for word in words)
    name = build(buildah, arguments)
    sys.stdout.write(json.dumps(buildah.config(name), indent=2) + "\n")
    sys.stdout.write(
        buildah.run("images", "--all", "--noheading", "--filter", "dangling=false") + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
