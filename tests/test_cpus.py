"""The CPU quota of a container, by cgroup v1 and v2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cpus import usable_cpus

V1 = "25 24 0:21 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "30 24 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "22 24 0:20 / /proc rw - proc proc rw\n31 24 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def machine(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    files = files | {"proc/self/cgroup": cgroup, "proc/self/mountinfo": OTHERS + mounts}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("1 1000000", 1),
        ("6400000 100000", 16),
        ("75000 25000", 3),
        ("", 16),
        ("much", 16),
        ("100000 0", 16),
        ("-5 100000", 16),
        ("1 2 3", 16),
    ],
)
def test_version_2(tmp_path: Path, quota: str, cpus: int) -> None:
    files = {"sys/fs/cgroup/cpu.max": f"{quota}\n"}
    assert usable_cpus(machine(tmp_path, "0::/\n", V2.format(top="/"), files)) == cpus


@pytest.mark.parametrize(
    ("quotas", "cpus"),
    [
        (("max", "max", "300000"), 3),
        (("max", "200000", "max"), 2),
        (("500000", "200000", "max"), 2),
        (("max", "max", "max"), 16),
    ],
)
def test_the_smallest_quota_among_the_ancestors_counts(tmp_path: Path, quotas: tuple[str, ...], cpus: int) -> None:
    folders = ("kubepods.slice", "kubepods.slice/pod1", "kubepods.slice/pod1/main")
    files = {
        f"sys/fs/cgroup/{folder}/cpu.max": f"{quota} 100000\n" for folder, quota in zip(folders, quotas, strict=True)
    }
    files["sys/fs/cgroup/another/cpu.max"] = "100000 100000\n"
    root = machine(tmp_path, f"0::/{folders[-1]}\n", V2.format(top="/"), files)
    assert usable_cpus(root) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [
        ("-1", "100000", 16),
        ("250000", "100000", 3),
        ("50000", "100000", 1),
        ("0", "100000", 16),
        ("", "", 16),
        ("100000", "", 16),
    ],
)
def test_version_1(tmp_path: Path, quota: str, period: str, cpus: int) -> None:
    top, own = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpu,cpuacct/docker/ab"
    files = {f"{own}/cpu.cfs_quota_us": f"{quota}\n", f"{own}/cpu.cfs_period_us": f"{period}\n",
             f"{top}/cpu.cfs_quota_us": "-1\n", f"{top}/cpu.cfs_period_us": "100000\n"}  # fmt: skip
    cgroup = "4:memory:/docker/ab\n3:cpuset:/docker/ab\n2:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n"
    assert usable_cpus(machine(tmp_path, cgroup, V1.format(top="/"), files)) == cpus


@pytest.mark.parametrize("cgroup", ["/docker/ab", "/docker/ab/inner", "/elsewhere", "/../.."])
def test_a_mount_that_begins_at_our_cgroup(tmp_path: Path, cgroup: str) -> None:
    """As in a container without a cgroup namespace: /proc has the path on the host, the mount only our subtree."""
    folder = "sys/fs/cgroup/cpu,cpuacct"
    files = {f"{folder}/cpu.cfs_quota_us": "200000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert usable_cpus(machine(tmp_path, f"2:cpu,cpuacct:{cgroup}\n", V1.format(top="/docker/ab"), files)) == 2


def test_both_versions_mounted_at_once(tmp_path: Path) -> None:
    unified = V2.format(top="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    folder = "sys/fs/cgroup/cpu,cpuacct"
    files = {f"{folder}/a/cpu.cfs_quota_us": "400000\n", f"{folder}/a/cpu.cfs_period_us": "100000\n",
             "sys/fs/cgroup/unified/b/cpu.stat": "\n"}  # fmt: skip
    root = machine(tmp_path, "2:cpuacct,cpu:/a\n0::/b\n", V1.format(top="/") + unified, files)
    assert usable_cpus(root) == 4


@pytest.mark.parametrize("text", ["", "nonsense\n", "0:\n", "::\n", "0::\n", "\0\n"])
def test_files_that_cannot_be_read_limit_nothing(tmp_path: Path, text: str) -> None:
    assert usable_cpus(tmp_path / "nowhere") == 16
    assert usable_cpus(machine(tmp_path, text, text, {})) == 16


def test_the_cpu_affinity_is_the_upper_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    root = machine(tmp_path, "0::/\n", V2.format(top="/"), {"sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert usable_cpus(root) == 2


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from service.settings import Settings
print(Settings().export_workers)
"""


def test_the_setting_has_it_as_its_default() -> None:
    said = subprocess.run([sys.executable, "-c", ON_ONE_CORE], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "1"
