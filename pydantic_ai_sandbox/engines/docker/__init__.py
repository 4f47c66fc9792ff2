"""The Docker engine."""

from .engine import DockerEngine

__all__ = ("DockerEngine",)
