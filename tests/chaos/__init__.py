"""Random operations of eight users, random faults beneath them, and a model that knows what may be read afterwards.

`python -m tests.chaos --seconds 3600 --seed N`. A supervisor chooses what happens and keeps the journal; backend processes
do it through the public interface and are killed meanwhile, as are containers, the daemon and the disk. All of it has a
daemon, a network namespace and a file system of its own, and needs root.
"""
