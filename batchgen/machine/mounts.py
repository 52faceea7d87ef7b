"""Which file system a path is on, by the machine's list of mounts: no file of the path itself is touched."""

from pathlib import Path

import psutil

# Kinds of file systems whose files are stamped by this machine's own clock. All others may be a server's.
_LOCAL = (
    "apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "msdos", "ntfs", "ntfs3",
    "overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ufs", "vfat", "xfs", "zfs",
)  # fmt: skip


def kind_of(path: Path) -> str | None:
    """The kind of file system that a path is on, such as ext4 or nfs4; None where the mounts do not tell."""
    where = path.absolute()
    places = {where, *where.parents}
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return None
    found = [(len(one.mountpoint), one.fstype) for one in mounts if Path(one.mountpoint) in places]
    return max(found)[1] or None if found else None


def is_local(kind: str | None) -> bool:
    """Whether files on a file system of this kind are stamped by this machine's clock, as far as that is known."""
    return kind in _LOCAL
