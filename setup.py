"""Builds the C extension; everything else about the distribution is in pyproject.toml.

The sources are a glob, so a new file in shmq/core needs no edit here. Warnings are errors only in the project's own
builds (see the Makefile): a newer compiler of a user must not fail over a new warning.
"""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

CORE = Path("shmq/core")

core = Extension(
    "shmq.core._core",
    sources=sorted(str(path) for path in CORE.glob("*.c")),
    depends=sorted(str(path) for path in CORE.glob("*.h")),
    extra_compile_args=[
        "-std=c11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wshadow",
        "-fvisibility=hidden",
        # Python's own headers are not ours to keep free of these warnings.
        f"-isystem{sysconfig.get_path('include')}",
    ],
)

setup(ext_modules=[core])
