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
    ResourceExhaustedError,
    RuntimeNotFoundError,
    SandboxError,
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
    "Written",
    "create_console_toolset",
)
