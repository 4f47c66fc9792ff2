"""A computer of its own for every Pydantic AI agent: hardened containers with files, commands and a console toolset."""

from __future__ import annotations

from .channel.answers import Usage
from .console import ConsoleToolset, create_console_toolset
from .engines.base import ContainerInfo
from .engines.docker import DockerEngine
from .errors import (
    ChannelError,
    EditError,
    EngineError,
    EngineUnavailableError,
    ImageBuildError,
    InvalidUserIdError,
    ResourceExhaustedError,
    RuntimeNotFoundError,
    SandboxError,
    SpecMismatchError,
)
from .protocols import (
    BoundedText,
    CauseOfDeath,
    CommandStream,
    Edit,
    Execution,
    GlobMatch,
    GlobResult,
    GrepLine,
    GrepResult,
    Job,
    JobInfo,
    JobOutput,
    OutputChunk,
    SupportsEdit,
    SupportsExecution,
    SupportsGlob,
    SupportsGrep,
    SupportsJobs,
    SupportsStreaming,
    SupportsTextRange,
    SupportsVersionedWrite,
    TextRange,
    Written,
)
from .runtimes import BuildProgress
from .sandbox import DockerSandbox, RunResult, Sandbox
from .sessions import Session, SessionManager, UserSandbox
from .spec import ResourceLimits, RuntimeConfig

__all__ = (
    "BoundedText",
    "BuildProgress",
    "CauseOfDeath",
    "ChannelError",
    "CommandStream",
    "ConsoleToolset",
    "ContainerInfo",
    "DockerEngine",
    "DockerSandbox",
    "Edit",
    "EditError",
    "EngineError",
    "EngineUnavailableError",
    "Execution",
    "GlobMatch",
    "GlobResult",
    "GrepLine",
    "GrepResult",
    "ImageBuildError",
    "InvalidUserIdError",
    "Job",
    "JobInfo",
    "JobOutput",
    "OutputChunk",
    "ResourceExhaustedError",
    "ResourceLimits",
    "RunResult",
    "RuntimeConfig",
    "RuntimeNotFoundError",
    "Sandbox",
    "SandboxError",
    "Session",
    "SessionManager",
    "SpecMismatchError",
    "SupportsEdit",
    "SupportsExecution",
    "SupportsGlob",
    "SupportsGrep",
    "SupportsJobs",
    "SupportsStreaming",
    "SupportsTextRange",
    "SupportsVersionedWrite",
    "TextRange",
    "Usage",
    "UserSandbox",
    "Written",
    "create_console_toolset",
)
