"""Light evaluation: arithmetic and small pieces of Python in an interpreter that can do little, without a container.

What it is: [Monty](https://github.com/pydantic/monty), an interpreter of its own for a subset of Python. Every
evaluation gets a new process of it, which takes milliseconds, is bounded in time and memory, and is gone afterwards.
Only text comes back, and nothing that the code wrote is parsed or rebuilt as an object in this process.

What it is *not*: a sandbox with the strength of a container. The process runs on the host's kernel, as the same user
and outside any namespace, so a hole in the interpreter is a hole in the host. There are no files, no network, no
environment, no packages and no state between two evaluations. Code that needs one of these, or that somebody hostile
may have written, belongs in `DockerSandbox`.

It needs the extra: `pip install 'pydantic-ai-sandbox[restricted]'`.
"""

try:
    import pydantic_monty as _  # noqa: F401 — asked for first, to say what is missing
except ImportError as error:
    raise ImportError(
        "Restricted evaluation needs Monty, which is not installed: pip install 'pydantic-ai-sandbox[restricted]'",
        name=error.name,
    ) from error

from .evaluation import Evaluation, evaluate
from .toolset import RestrictedToolset

__all__ = ("Evaluation", "RestrictedToolset", "evaluate")
