"""Write the seccomp profile of our containers: every system call the kernel headers name, less those denied below.

    python runtimes/seccomp/generate.py > pydantic_ai_sandbox/engines/docker/seccomp.json

Needs `linux-libc-dev` (its headers are the list of names). What is denied is denied for a reason given here; a call that
is in no list, because it is newer than the headers, is refused.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HEADERS = (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h"))

DENIED = {
    "mounts are the engine's business": """
        mount umount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick
        mount_setattr listmount statmount""",
    "a new namespace brings capabilities back": "unshare setns",
    "the kernel itself": """
        init_module finit_module delete_module create_module query_module get_kernel_syms kexec_load kexec_file_load
        reboot bpf syslog acct swapon swapoff quotactl quotactl_fd sysfs _sysctl uselib ustat nfsservctl
        lookup_dcookie vhangup iopl ioperm""",
    "keyrings are not separated by container": "add_key request_key keyctl",
    "the clock is the host's": "settimeofday clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex stime",
    "large surface, long history of holes": """
        io_uring_setup io_uring_enter io_uring_register userfaultfd perf_event_open fanotify_init fanotify_mark
        modify_ldt kcmp pidfd_getfd process_madvise""",
    "opens files by inode, past every mount": "open_by_handle_at name_to_handle_at",
    "moves memory between nodes of the whole host": """
        mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node""",
    "changes what security module watches us": "lsm_set_self_attr lsm_get_self_attr lsm_list_modules",
    "never implemented, or gone": """
        afs_syscall getpmsg putpmsg security tuxcall vserver epoll_ctl_old epoll_wait_old arch_specific_syscall
        vm86 vm86old socketcall""",
}

SCHEDULING = ("sched_setaffinity", "sched_setattr", "sched_setscheduler")
"""When and where a thread runs; the first argument says which one, and 0 is the calling one."""

SCHED_OTHER = 0
"""The ordinary policy, which takes nothing from anybody."""

PRIORITIES = {"ioprio_set": 1, "setpriority": 0}
"""Calls whose first argument says, by this value, that the second names a process, and not its group or all of a user's."""

CONDITIONAL = ("clone", "clone3", "personality", "prlimit64", "socket", *SCHEDULING, *PRIORITIES)
"""Allowed, or not, by their arguments; see `conditional_rules`."""

NEWER = {
    "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue", "mseal",
    "setxattrat", "getxattrat", "listxattrat", "removexattrat",
}  # fmt: skip
"""Harmless calls that are younger than the headers of the oldest system this script is run on."""

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET."""

SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""All others are refused: AF_VSOCK reaches the host of a virtual machine even with the network off, AF_ALG is attack surface."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX and PER_LINUX32, each with or without UNAME26, and the query; what is left out weakens address randomisation."""

ENOSYS = 38


def known_calls() -> set[str]:
    """Every name in the headers."""
    define = re.compile(r"^#define\s+__NR(?:3264)?_(\w+)\s", re.MULTILINE)
    return {name for header in HEADERS for name in define.findall(header.read_text())} - {"syscalls"}


def allow(names: list[str], *conditions: dict[str, object]) -> dict[str, object]:
    """A rule that lets calls through, if their arguments are so."""
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": list(conditions)}


def equal(*values: int) -> list[dict[str, object]]:
    """Conditions that the first arguments are these."""
    return [{"index": index, "value": value, "op": "SCMP_CMP_EQ"} for index, value in enumerate(values)]


def conditional_rules() -> list[dict[str, object]]:
    """Rules that look at arguments."""
    no_namespaces = {"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return [
        allow(["clone"], no_namespaces),
        # Its flags are behind a pointer, which a filter cannot follow; libraries fall back to clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "args": []},
        # Of itself only: whoever has the runner's uid could otherwise take away its file descriptors.
        allow(["prlimit64"], *equal(0)),
        # Of the calling thread only: a runner that runs when nothing else wants to never does, and does not even die of
        # SIGKILL while something of the same uid keeps the processor busy.
        allow([*SCHEDULING], *equal(0)),
        # The C library names the calling thread by its number; ZeroMQ sets the policy of each of its threads, and gives up
        # if it may not.
        allow(["sched_setscheduler"], {"index": 1, "value": SCHED_OTHER, "op": "SCMP_CMP_EQ"}),
        *(allow([name], *equal(process, 0)) for name, process in PRIORITIES.items()),
        *(allow(["personality"], *equal(value)) for value in PERSONALITIES),
        *(allow(["socket"], *equal(value)) for value in SOCKET_FAMILIES.values()),
    ]


def profile() -> dict[str, object]:
    """The profile in Docker's format."""
    denied = {name for names in DENIED.values() for name in names.split()}
    allowed = (known_calls() | NEWER) - denied - set(CONDITIONAL)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        # 64-bit only: the 32-bit entry points are a second, less tested set of calls.
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [allow(sorted(allowed)), *conditional_rules()],
    }


if __name__ == "__main__":
    json.dump(profile(), sys.stdout, indent=1)
    sys.stdout.write("\n")
