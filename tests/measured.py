#!/usr/bin/env python3
"""Runs a command and prints the time it took and the most memory it had at once, as the kernel counts them.

usage: measured.py MIB COMMAND...     fails where the command does, and where it had more memory than so many MiB
"""
import os
import resource
import subprocess
import sys
import time


def main(most, *command):
    begun = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - begun
    # Of the one child there was. In KiB on Linux.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    mib = used.ru_maxrss / 1024
    print(f"     {os.path.basename(command[0])} {' '.join(command[1:3])}: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, {mib:.0f} MiB at most")
    if status == 0 and mib > int(most):
        print(f"FAIL more memory than {most} MiB")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
