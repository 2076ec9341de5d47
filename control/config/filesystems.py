"""What kind of file system a directory lies on, for the check of the log's directory.

Reads the kernel's table of mounts; called by system checks only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
VOLATILE = frozenset({"tmpfs", "ramfs", "devtmpfs", "zram"})
# A sync there may return before another machine has the bytes, and a lock may not hold.
NETWORK = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs",
        "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.ceph", "virtiofs",
    }
)  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")


def kind_of(directory: Path, *, mounts: Path = MOUNTS) -> str:
    """The type of the file system that holds `directory` or will; "" where nobody can say."""
    place = os.path.realpath(directory)
    best, kind = "", ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""  # not Linux
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5 or not after:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        # The later of two mounts on one directory hides the former.
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
