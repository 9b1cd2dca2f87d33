"""Processors that this process may use."""

import os

from joblib import cpu_count


def processors() -> int:
    """Number of processors allotted: by affinity, container (cgroup) or SLURM; at least 1.

    `os.cpu_count` gives those of the whole machine.
    """
    return min(cpu_count(), int(os.environ.get("SLURM_CPUS_PER_TASK") or 10**6))
