"""Small disks for processes to keep their files on, which can be filled to the last byte."""

import os
import shutil
import subprocess

from checks import note
from processes import at_end

#: Loop mounts show this file's path, by which those of a killed run are found.
SUFFIX = ".neorunbase-disk"


def _succeeds(*command):
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


class Disk:
    """A file system of its own in a file (so that fsync means something), or else a small tmpfs."""

    def __init__(self, directory, name, mebibytes):
        self.mount_point = f"{directory}/{name}"
        self.data = f"{self.mount_point}/data"
        self.ballast = f"{self.mount_point}/ballast"
        os.makedirs(self.mount_point)
        image = f"{directory}/{name}{SUFFIX}"
        with open(image, "wb") as file:
            file.truncate(mebibytes << 20)
        self.kind = None
        if os.geteuid() == 0:
            # Nothing is set aside for root: full is full.
            if _succeeds("mkfs.ext4", "-q", "-F", "-m", "0", image) and _succeeds(
                "mount", "-o", "loop,nodev,nosuid", image, self.mount_point
            ):
                self.kind = "ext4 in a file"
            elif _succeeds("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", self.mount_point):
                self.kind = "tmpfs"
        if self.kind:
            # Lazily: a process may still be ending.
            at_end(lambda: subprocess.run(["umount", "-l", self.mount_point], capture_output=True))
        os.makedirs(self.data, exist_ok=True)

    def fill(self):
        """Takes all that is free; what others free meanwhile is not taken again."""
        with open(self.ballast, "ab") as file:
            room = os.statvfs(self.mount_point)
            for size in (room.f_bavail * room.f_frsize, 16 << 20, 1 << 20, 1 << 16, 4096):
                while True:
                    try:
                        end = os.fstat(file.fileno()).st_size
                        os.posix_fallocate(file.fileno(), end, size)
                    except OSError:
                        break

    def free(self):
        if os.path.exists(self.ballast):
            os.unlink(self.ballast)


def remove_abandoned():
    """Disks of an earlier run that was killed."""
    with open("/proc/mounts") as mounts:
        lines = [line.split() for line in mounts]
    for device, mount_point, *_ in lines:
        if not device.startswith("/dev/loop"):
            continue
        try:
            with open(f"/sys/block/{os.path.basename(device)}/loop/backing_file") as file:
                image = file.read().strip()
        except OSError:
            continue
        if image.removesuffix(" (deleted)").endswith(SUFFIX):
            note(f"    an earlier run has left {mount_point}")
            subprocess.run(["umount", "-l", mount_point], capture_output=True)
            if os.path.basename(os.path.dirname(mount_point)).startswith("neorunbase-test-"):
                shutil.rmtree(os.path.dirname(mount_point), ignore_errors=True)
