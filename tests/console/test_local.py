"""The console on a workspace that has none of our abilities."""

from .contract import CommandContract, EditContract, FindContract, JobContract, ReadContract, WriteContract


class TestCommands(CommandContract): ...


class TestRead(ReadContract): ...


class TestWrite(WriteContract): ...


class TestEdit(EditContract): ...


class TestFind(FindContract): ...


class TestJobs(JobContract): ...
