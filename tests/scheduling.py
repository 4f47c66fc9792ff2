"""Which tests workers of pytest-xdist may run beside each other."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs]

__all__ = ("Scheduling",)

_GROUPS = {
    "makes images, or looks at all that there are": ("tests/images/", "tests/project/test_cli.py", "-images: "),
    "starts a daemon of its own": (
        "tests/chaos/",
        "tests/docker/test_oci_runtime.py",
        "tests/docker/test_outage.py",
        "tests/project/test_daemon.py",
    ),
    "fills a volume": ("tests/docker/test_reaching.py",),
    "is the runner's": ("tests/runner/",),
    "shares a wheel": ("tests/project/test_wheel.py",),
}


class Scheduling(LoadScopeScheduling):
    """Gives each group to one worker, and every other test to whichever worker is free.

    The groups are named here, by parts of their tests' names, because marks (`xdist_group`) do not reach this process.
    """

    def _split_scope(self, nodeid: str) -> str:
        groups = (group for group, parts in _GROUPS.items() if any(part in nodeid for part in parts))
        return next(groups, nodeid)
