"""Stateful code: a Jupyter kernel inside a workspace, reached by a connection alone."""

from .cells import CellError, CellResult, CellStatus, InterpreterState, KernelDeath
from .interpreter import DEFAULT_NAME, Interpreter, check_name

__all__ = (
    "DEFAULT_NAME",
    "CellError",
    "CellResult",
    "CellStatus",
    "Interpreter",
    "InterpreterState",
    "KernelDeath",
    "check_name",
)
