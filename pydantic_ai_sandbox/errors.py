"""What can go wrong beyond what a command or a file operation reports.

    SandboxError
    ├── EngineError                       the container engine refused or failed
    │   ├── EngineUnavailableError        … does not answer              (also ConnectionError)
    │   ├── ImageBuildError               … could not build an image     (.log_tail, .step)
    │   ├── OCIRuntimeError               … cannot start containers so   (.oci_runtime)
    │   └── SpecMismatchError             … has the name for a container of other settings
    ├── RuntimeNotFoundError              no runtime of that name        (also LookupError)
    ├── InvalidUserIdError                nobody can have that user id   (also ValueError)
    ├── CapacityError                     no room for another sandbox    (.limit, .position)
    ├── QuotaExceededError                a workspace is full            (also OSError; .limit)
    ├── ChannelError                      the stream to the runner broke a rule or broke off
    ├── EditError                         an edit does not apply         (also ValueError)
    ├── InterpreterError                  the interpreter in the sandbox failed, or answers what makes no sense
    │   └── InterpreterMissingError       … cannot be started: there is no Python with ipykernel
    ├── UnsafeMountError                  a path must not be mounted     (also ValueError)
    └── ResourceExhaustedError            the sandbox ran into one of its limits (.resource, .limit)

What a command or a file operation does wrong is not here: a non-zero exit code is a result, a missing file is
`FileNotFoundError`, and the rest are Pydantic AI's `WorkspaceTimeoutError`, `WorkspaceOutputLimitError` and
`WorkspaceUnavailableError`. Every message names the cause and what to do about it.
"""

from __future__ import annotations

import errno

__all__ = (
    "CapacityError",
    "ChannelError",
    "EditError",
    "EngineError",
    "EngineUnavailableError",
    "ImageBuildError",
    "InterpreterError",
    "InterpreterMissingError",
    "InvalidUserIdError",
    "OCIRuntimeError",
    "QuotaExceededError",
    "ResourceExhaustedError",
    "RuntimeNotFoundError",
    "SandboxError",
    "SpecMismatchError",
    "UnsafeMountError",
)


class SandboxError(Exception):
    """Base of every error this package defines."""


class EngineError(SandboxError):
    """The container engine refused a request or failed to carry it out."""


class EngineUnavailableError(EngineError, ConnectionError):
    """The container engine does not answer: not installed, not running, no permission, or too slow."""


class ImageBuildError(EngineError):
    """An image could not be built.

    `log_tail` holds the end of the build's output, `step` the instruction that failed, if the build got that far.
    """

    def __init__(self, message: str, *, log_tail: str = "", step: str | None = None) -> None:
        super().__init__(message)
        self.log_tail = log_tail
        self.step = step


class OCIRuntimeError(EngineError):
    """The engine does not know the OCI runtime that was asked for, or containers do not start with it.

    `oci_runtime` is its name.
    """

    def __init__(self, message: str, *, oci_runtime: str) -> None:
        super().__init__(message)
        self.oci_runtime = oci_runtime


class SpecMismatchError(EngineError):
    """The name belongs to a sandbox that was made with other settings."""


class InvalidUserIdError(SandboxError, ValueError):
    """No user can have that id: it is empty, too long, or not text."""


class RuntimeNotFoundError(SandboxError, LookupError):
    """No runtime has that name."""


class CapacityError(SandboxError):
    """No room for another sandbox came free in time.

    `limit` is how many there may be, `position` the place in the queue that was reached, 1 being the next to be served.
    """

    def __init__(self, message: str, *, limit: int, position: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.position = position


class QuotaExceededError(SandboxError, OSError):
    """A workspace holds more than its quota, `limit` bytes, so nothing more may be written until something is deleted."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(errno.EDQUOT, message)
        self.limit = limit

    def __str__(self) -> str:
        return str(self.args[1])


class ChannelError(SandboxError):
    """The stream to the sandbox's runner broke off, or the peer broke the protocol; the outcome of the call is unknown."""


class EditError(SandboxError, ValueError):
    """The text to replace is not there, not unique or empty, or the file changed; written for whoever asked for the edit."""


class UnsafeMountError(SandboxError, ValueError):
    """A path of the host must not be mounted into a sandbox: it would hand over the host, or another user's files."""


class InterpreterError(SandboxError):
    """The interpreter in a sandbox could not be started, ended without an answer, or answered what makes no sense."""


class InterpreterMissingError(InterpreterError):
    """The sandbox has nothing to make an interpreter of: no Python, or one without ipykernel."""


class ResourceExhaustedError(SandboxError):
    """The sandbox cannot serve the call because one of its limits is used up.

    `resource` names the limit (`"processes"`, `"commands"`), `limit` its value or `None` when unknown.
    """

    def __init__(self, message: str, *, resource: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.resource = resource
        self.limit = limit
