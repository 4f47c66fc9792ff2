"""What the model sees: the tools of a sandbox as a Pydantic AI toolset, and the text they answer with."""

from .toolset import ConsoleToolset, PythonToolset, create_console_toolset

__all__ = ("ConsoleToolset", "PythonToolset", "create_console_toolset")
