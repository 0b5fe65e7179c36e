"""System calls that no learner's code needs: refused by the kernel (seccomp), for this process and all it starts.

They are those that reach other processes (the zygote has the same user id), that keep things where no wiping finds
them (keyrings, System V memory, extended attributes), that hold memory which no process is seen to hold (memfd), and
that open doors of the kernel which the sandbox does not stand in front of (user namespaces, io_uring, vsock).
"""

import ctypes
import errno
import platform
import struct

# Of x86_64, and of aarch64, in this order; None where there is no such call.
_REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "acct": (163, 89),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
}
_CLONE3, _CLONE, _SOCKET, _PAIR, _PRLIMIT = (435, 435), (56, 220), (41, 198), (53, 199), (302, 261)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*

_NAMESPACES = 0x7E020000  # CLONE_NEW* of all kinds
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6: without a network, all are of this process's own
_X32 = 0x40000000  # calls of another kind, with numbers of their own

_LOAD, _EQUAL, _AT_LEAST, _SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST, _THIRD = 0, 4, 16, 32  # offsets in struct seccomp_data; the low halves of arguments
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


class Unknown(Exception):
    """This machine's system calls are not in the table."""


def program(machine=None):
    """The filter, as the bytes of BPF instructions. Errors: Unknown."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise Unknown(f"The system calls of {machine} are not known here.")
    column, arch = _MACHINES[machine]
    lines = []

    def add(code, value, yes=0, no=0):
        lines.append(struct.pack("=HBBI", code, yes, no, value))

    def refuse(error):
        add(_RETURN, _ERROR | error)

    add(_LOAD, _ARCH)
    add(_EQUAL, arch, 1, 0)
    add(_RETURN, _KILL)
    add(_LOAD, _NUMBER)
    add(_AT_LEAST, _X32, 0, 1)
    refuse(errno.ENOSYS)
    for numbers in _REFUSED.values():
        if numbers[column] is not None:
            add(_EQUAL, numbers[column], 0, 1)
            refuse(errno.EPERM)
    add(_EQUAL, _CLONE3[column], 0, 1)  # its flags are in memory, where no filter looks: C libraries then take clone
    refuse(errno.ENOSYS)
    add(_EQUAL, _CLONE[column], 0, 4)
    add(_LOAD, _FIRST)
    add(_SET, _NAMESPACES, 0, 1)
    refuse(errno.EPERM)
    add(_RETURN, _ALLOW)
    add(_EQUAL, _PRLIMIT[column], 0, 4)  # a process's limits are its own
    add(_LOAD, _FIRST)
    add(_EQUAL, 0, 1, 0)
    refuse(errno.EPERM)
    add(_RETURN, _ALLOW)
    for numbers in (_SOCKET, _PAIR):
        add(_EQUAL, numbers[column], 0, 3 + len(_FAMILIES))
        add(_LOAD, _FIRST)
        for i, family in enumerate(_FAMILIES):
            add(_EQUAL, family, len(_FAMILIES) - i, 0)
        refuse(errno.EAFNOSUPPORT)
        add(_RETURN, _ALLOW)
    add(_RETURN, _ALLOW)
    return b"".join(lines)


def refuse():
    """Refuses them from now on; there is no way back. Errors: Unknown, OSError."""
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    told = Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER, ctypes.byref(told), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no filter of system calls can be set")
