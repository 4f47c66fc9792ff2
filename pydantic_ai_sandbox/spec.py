"""What a sandbox is made of: frozen, validated descriptions that hold no connection to anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from .errors import UnsafeMountError

__all__ = (
    "DEFAULT_UID",
    "GRANTABLE_CAPS",
    "MANAGER_FOLDER",
    "MOUNT_ROOT",
    "WORKSPACE",
    "ContainerSpec",
    "NetworkMode",
    "ResourceLimits",
    "RuntimeConfig",
    "VolumeMount",
    "readable_size",
    "refuse_host_directory",
)

DEFAULT_UID = 10001
"""User and group that a sandbox runs as, unless its workspace belongs to another."""

WORKSPACE = "/workspace"
"""Where commands start and where a host directory given as `workspace` appears, unless the runtime says otherwise."""

MOUNT_ROOT = "/.sandbox"
"""Directory in every container that belongs to us: the runner's binary (read-only) and its socket."""

MANAGER_FOLDER = ".manager"
"""Directory under a session manager's root that holds what is nobody's workspace, and so marks the root; no user's directory
begins with a dot."""

MiB = 1024 * 1024
GiB = 1024 * MiB

NetworkMode: TypeAlias = Literal["none", "bridge"]
"""`"none"`: no interface but loopback. `"bridge"`: an ordinary Docker network, open to the internet and the host."""

_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

GRANTABLE_CAPS = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID",
    "SETPCAP", "SETUID",
})  # fmt: skip
"""Capabilities that a sandbox can be given at all: those that Docker gives every container, less MKNOD, which makes devices, and
SYS_CHROOT, which our seccomp profile makes useless. All others act on the kernel and the host that everybody shares
(SYS_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME, BPF, …), go around the file system (DAC_READ_SEARCH) or take the runner
over (SYS_PTRACE): with one of those there is no sandbox left to speak of."""

_FORBIDDEN_SOURCES = frozenset({
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv",
    "/sys", "/usr", "/var", "/var/lib", "/var/run",
})  # fmt: skip
"""Host directories that hand the host, or all of its users, to whoever may write in them."""

_FORBIDDEN_TREES = ("/dev", "/proc", "/sys", "/run", "/var/run", "/var/lib/docker", "/var/lib/containerd")
"""Host directories of which not even a part may be mounted: the kernel's, the engine's, and where services have their sockets."""

_RESERVED_TARGETS = ("/proc", "/sys", "/dev", MOUNT_ROOT)
"""Container paths that a volume must not cover, nor anything below them."""

_SYSTEM_DIRECTORIES = frozenset({
    "/bin", "/boot", "/etc", "/home", "/home/sandbox", "/lib", "/lib64", "/node_modules", "/opt", "/run", "/sbin",
    "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/var",  # noqa: S108
})  # fmt: skip
"""Container paths that a workspace must not take the place of."""


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def readable_size(size: int) -> str:
    """Bytes as people write them: `1 GiB`, `1.5 MiB`, `300 bytes`."""
    for unit, name in ((GiB, "GiB"), (MiB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{size} bytes"


class ResourceLimits(_Frozen):
    """What one sandbox may use. Sizes are bytes, or strings such as `"512MiB"`."""

    memory: Annotated[ByteSize, Field(ge=16 * MiB)] = ByteSize(GiB)
    """Memory, swap included: the container cannot swap."""
    cpus: Annotated[float, Field(ge=0.01, le=1024)] = 1.0
    """Processors, as a share of time; well below what the machine has, or one sandbox can starve the others."""
    pids: Annotated[int, Field(ge=32)] = 256
    """Processes and threads; some twenty of them are the runner's own."""
    open_files: Annotated[int, Field(ge=64)] = 4096
    """File descriptors per process."""
    file_size: Annotated[ByteSize, Field(ge=MiB)] = ByteSize(2 * GiB)
    """Largest single file a process may write."""
    workspace: Annotated[ByteSize, Field(ge=MiB)] = ByteSize(512 * MiB)
    """Size of the workspace when it is not a host directory: it lies in memory and counts towards `memory`."""
    tmp: Annotated[ByteSize, Field(ge=MiB)] = ByteSize(256 * MiB)
    """Size of `/tmp`, in memory."""
    home: Annotated[ByteSize, Field(ge=MiB)] = ByteSize(64 * MiB)
    """Size of the home directory, in memory."""
    output: Annotated[ByteSize, Field(ge=4096, le=64 * MiB)] = ByteSize(MiB)
    """Output of a command that is kept: half of it per stream, its beginning and its end."""
    output_stop: Annotated[ByteSize, Field(ge=4096)] = ByteSize(16 * MiB)
    """Output after which a command that is waited for is stopped."""


class RuntimeConfig(_Frozen):
    """An image definition, built on first use and cached by everything that decides what it becomes.

    It is either put together from `packages` and `setup`, or it is a folder with a `Dockerfile`, on this machine
    (`dockerfile`) or in a git repository (`git`).
    """

    name: Annotated[str, Field(pattern=_NAME)]
    """Name for people, and part of the image's."""
    base_image: Text | None = None
    """Image to add to; by default the runtime `node-minimal` for `"npm"`, and `python-minimal` for the others."""
    packages: Sequence[Text] = ()
    """What to install, as the package manager writes it: `pandas>=2,<3`, `vite@7`, `ffmpeg`."""
    package_manager: Literal["pip", "npm", "apt"] = "pip"
    """What installs them: into the virtual environment `/opt/venv`, into `/node_modules`, or as Debian packages."""
    setup: Sequence[Text] = ()
    """Shell commands that run as root after that, each once, with the network on."""
    env: Mapping[str, Text] = Field(default_factory=dict)
    """Variables that `setup` and every command in a sandbox see. They are in the image: no place for secrets."""
    workdir: Text = WORKSPACE
    """Where a sandbox's files lie and its commands start."""
    dockerfile: Path | None = None
    """A folder with a `Dockerfile`, or the file itself; its folder is the build context."""
    git: Text | None = None
    """`https://host/repository.git#branch:folder`; also a tag or a commit, and `ssh:` or `file:`. A commit is built without
    asking the repository again; a branch or a tag is looked up for every new sandbox."""

    @field_validator("packages")
    @classmethod
    def _check_packages(cls, packages: Sequence[str]) -> Sequence[str]:
        for package in packages:
            if not package.strip() or package.startswith("-"):
                raise ValueError(f"{package!r} is not a package; what needs options can be a command in `setup`")
        return tuple(packages)

    @field_validator("setup")
    @classmethod
    def _check_setup(cls, setup: Sequence[str]) -> Sequence[str]:
        if not all(command.strip() for command in setup):
            raise ValueError("a command in `setup` is empty")
        return tuple(setup)

    @field_validator("base_image")
    @classmethod
    def _check_base_image(cls, image: str | None) -> str | None:
        # It becomes part of a Dockerfile.
        if image is not None and not re.fullmatch(r"[A-Za-z0-9]\S*", image):
            raise ValueError(f"{image!r} is not a name for an image, such as 'python:3.12-slim'")
        return image

    @field_validator("env")
    @classmethod
    def _check_env(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        if any("\n" in value or "\r" in value for value in env.values()):
            raise ValueError("a variable of an image is one line")
        return check_environment(env)

    @field_validator("workdir")
    @classmethod
    def _check_workdir(cls, workdir: str) -> str:
        return _workdir(workdir)

    @field_validator("dockerfile")
    @classmethod
    def _make_absolute(cls, dockerfile: Path | None) -> Path | None:
        return dockerfile and dockerfile.expanduser().absolute()

    @model_validator(mode="after")
    def _check_one_source(self) -> RuntimeConfig:
        parts = [name for name in ("base_image", "packages", "setup") if getattr(self, name)]
        if self.dockerfile and self.git:
            raise ValueError("a runtime has a `dockerfile` or comes from `git`, not both")
        if parts and (self.dockerfile or self.git):
            raise ValueError(
                f"{' and '.join(parts)} cannot be added to a runtime that has a Dockerfile; write them there"
            )
        return self


def check_environment(env: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse names that no environment variable can have.

    Raises:
        ValueError: There is one.
    """
    for name in env:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
    return env


def _workdir(path: str) -> str:
    workdir = _inside(path, "a working directory")
    if workdir in _SYSTEM_DIRECTORIES:
        raise ValueError(f"{workdir!r} cannot be a working directory: the system's own files lie there")
    return workdir


def _inside(target: str, what: str) -> str:
    """A path in the sandbox at which something may be mounted."""
    path = PurePosixPath(target)
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{what} in the sandbox must be absolute and without '..', got {target!r}")
    if path == PurePosixPath("/") or any(path.is_relative_to(reserved) for reserved in _RESERVED_TARGETS):
        raise ValueError(f"{target!r} is reserved in a sandbox")
    return str(path)


def refuse_host_directory(path: Path) -> None:
    """Refuse what hands the host to a sandbox when mounted; looks at the path alone.

    Raises:
        UnsafeMountError: It must not be mounted.
    """
    if str(path) in _FORBIDDEN_SOURCES or any(path.is_relative_to(tree) for tree in _FORBIDDEN_TREES):
        raise UnsafeMountError(f"{str(path)!r} cannot be mounted: it would hand the host to the sandbox")
    if path.name in ("docker.sock", "containerd.sock", "podman.sock"):
        raise UnsafeMountError(f"{str(path)!r} cannot be mounted: whoever has the engine's socket has the host")


class VolumeMount(_Frozen):
    """A host directory or file that appears in the sandbox."""

    source: Path
    """Absolute path on the engine's host."""
    target: Text
    """Absolute path in the sandbox."""
    read_only: bool = False

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: Path) -> Path:
        if not source.is_absolute() or ".." in source.parts:
            raise ValueError(f"a volume's host path must be absolute and without '..', got {str(source)!r}")
        refuse_host_directory(source)
        return source

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str) -> str:
        return _inside(target, "a volume's path")


class ContainerSpec(_Frozen):
    """Everything that decides what a container is; two equal specs give interchangeable containers."""

    image: str
    """Image reference or id."""
    uid: Annotated[int, Field(ge=0)] = DEFAULT_UID
    """User and group id that everything in the container runs as; never 0 without `allow_root`."""
    workdir: Text = WORKSPACE
    """Where its files lie and its commands start."""
    workspace: Path | None = None
    """Host directory mounted at `workdir`; `None`: a file system in memory that goes with the container."""
    volumes: tuple[VolumeMount, ...] = ()
    """Further mounts."""
    env: Mapping[str, Text] = Field(default_factory=dict)
    """Environment of every command, over the image's own."""
    limits: ResourceLimits = ResourceLimits()
    """Resource limits."""
    network: NetworkMode = "none"
    """What it can reach."""
    idle_timeout: Annotated[int, Field(ge=0)] = 1800
    """Seconds without use after which it ends itself; 0: never."""
    max_lifetime: Annotated[int, Field(ge=0)] = 0
    """Seconds after which it ends itself in any case; 0: never."""
    persistent: bool = False
    """Whether the container and what it installed outlive its end, to be started again."""
    disk_quota: Annotated[int, Field(ge=0)] = 0
    """Bytes that the files in the workspace may occupy, as far as the runner, which looks now and then, can hold it to that;
    0: any number. Meant for a host directory that nothing better limits."""
    oci_runtime: str | None = None
    """The engine's OCI runtime (`"runsc"` for gVisor); the engine's default when `None`."""
    allow_root: bool = False
    """Unsafe: everything in the container runs as root."""
    extra_caps: tuple[str, ...] = ()
    """Unsafe: capabilities, of `GRANTABLE_CAPS`, that root in the container has; all others stay dropped."""

    @field_validator("extra_caps")
    @classmethod
    def _check_extra_caps(cls, caps: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(sorted({cap.upper().removeprefix("CAP_") for cap in caps}))
        if refused := [name for name in names if name not in GRANTABLE_CAPS]:
            raise ValueError(
                f"{', '.join(map(repr, refused))} cannot be given to a sandbox, which would be none any more; "
                f"there are: {', '.join(sorted(GRANTABLE_CAPS))}"
            )
        return names

    @field_validator("env")
    @classmethod
    def _check_env(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        return check_environment(env)

    @field_validator("workdir")
    @classmethod
    def _check_workdir(cls, workdir: str) -> str:
        return _workdir(workdir)

    @field_validator("workspace")
    @classmethod
    def _check_workspace(cls, workspace: Path | None) -> Path | None:
        return workspace and VolumeMount(source=workspace, target=WORKSPACE).source

    @model_validator(mode="after")
    def _check_output(self) -> ContainerSpec:
        if self.limits.output_stop < self.limits.output:
            raise ValueError("limits.output_stop must not be less than limits.output")
        return self

    @model_validator(mode="after")
    def _check_unsafe(self) -> ContainerSpec:
        if (self.uid == 0) != self.allow_root:
            raise ValueError("a sandbox runs as root if, and only if, allow_root=True asks for that")
        if self.extra_caps and not self.allow_root:
            raise ValueError(
                "extra_caps are of no use without allow_root=True: only root in a container gets capabilities"
            )
        if "SETUID" in self.extra_caps and "KILL" not in self.extra_caps:
            raise ValueError(
                "extra_caps with SETUID need KILL too: the runner must be able to end what runs as another user"
            )
        if self.allow_root and (self.workspace or any(not volume.read_only for volume in self.volumes)):
            raise ValueError(
                "allow_root=True cannot be combined with a host directory that the sandbox may write to: it could leave a "
                "program there that makes whoever runs it on the host root"
            )
        return self

    @property
    def unsafe(self) -> str:
        """What it gives up of what keeps code in, for people; empty when it gives up nothing."""
        caps = f"extra_caps={','.join(self.extra_caps)}" if self.extra_caps else ""
        return " ".join(filter(None, ("allow_root" if self.allow_root else "", caps)))

    def digest(self) -> str:
        """Hash of all of it, 16 hexadecimal digits: tells whether a container that runs still fits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
