"""What Python's `os` lacks: renames that refuse to replace or that swap, early writeback, memory.

Sources: renameat2(2) and sync_file_range(2) of Linux; mallopt(3); renamex_np(2) of macOS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from pathlib import Path

_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}
_KEEP, _SWAP = (
    (1, 2) if sys.platform == "linux" else (4, 2)
)  # RENAME_NOREPLACE, _EXCHANGE; RENAME_EXCL, _SWAP
_AT_FDCWD = -100
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc
_WRITE = 2  # SYNC_FILE_RANGE_WRITE: start, do not wait


def rename_new(source: Path, target: Path) -> None:
    """Rename a file to a name that must be free. Raises FileExistsError if it is not."""
    if _rename(source, target, _KEEP):
        return
    try:
        os.link(source, target, follow_symlinks=False)  # fails where `target` exists, in one step
    except FileExistsError:
        raise
    except OSError:  # a file system with neither
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)
    else:
        source.unlink()


def exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step; False, with nothing done, where the system cannot."""
    return _rename(a, b, _SWAP)


def start_writeback(fd: int) -> None:
    """Have the system begin to put a file's written pages on disk, so that a later fsync waits for little.

    A hint: does nothing where the system has no such call.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "sync_file_range"):
        library.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_WRITE))


def keep_freed_memory() -> None:
    """Have the C library keep small blocks that were freed, for the next ones.

    It gives the top of its heap back at every chance, and numpy's temporaries of a few 100 kB then cost
    more in page faults than in arithmetic. A hint: does nothing where the library has no such call.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(ctypes.c_int(_TRIM_THRESHOLD), ctypes.c_int(1 << 26))
        library.mallopt(ctypes.c_int(_MMAP_THRESHOLD), ctypes.c_int(1 << 23))


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    import resource

    status = Path("/proc/self/status")
    if status.exists() and (line := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(line[1]) * 1024  # of this program; getrusage also counts what ran here before exec
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Rename with a flag; False where the system or the file system does not know it."""
    old, new = os.fsencode(source), os.fsencode(target)
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(flag))
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(old, new, ctypes.c_uint(flag))
    else:
        return False
    code = ctypes.get_errno() if failed else 0
    if code and code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), str(target))
    return not failed
