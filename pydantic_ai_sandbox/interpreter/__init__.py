"""Stateful code: a Jupyter kernel inside a workspace, reached by a connection alone."""

from .cells import CellError, CellResult, CellStatus, InterpreterState, KernelDeath
from .interpreter import Interpreter

__all__ = ("CellError", "CellResult", "CellStatus", "Interpreter", "InterpreterState", "KernelDeath")
