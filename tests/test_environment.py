# SPDX-License-Identifier: Apache-2.0
"""What the program has to be started with: it starts itself again where that is missing."""

import os
import platform
import subprocess
import sys

import pytest

from mlm_jax import __main__, environment

TOUCH = """
import resource
held = bytearray(b"1") * (256 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.fixture
def left_to_programs(monkeypatch, tmp_path):
    """Linux's choice of huge pages."""

    def choose(choice: str) -> None:
        (tmp_path / "enabled").write_text(choice)
        monkeypatch.setattr(environment, "CHOICE", str(tmp_path / "enabled"))

    choose("always [madvise] never")
    return choose


@pytest.mark.parametrize("given", [{}, {"GLIBC_TUNABLES": "glibc.malloc.check=1"}, {"GLIBC_TUNABLES": ""}])
def test_what_is_missing_is_missing_once_and_keeps_what_is_there(left_to_programs, given):
    wanted = environment.missing(given)
    assert wanted["GLIBC_TUNABLES"].split(":") == [*filter(None, given.values()), "glibc.malloc.hugetlb=1"]
    assert environment.missing(given | wanted) == {}


@pytest.mark.parametrize("choice", ["[always] madvise never", "always madvise [never]", ""])
def test_huge_pages_are_asked_for_where_linux_leaves_them_to_programs(left_to_programs, choice):
    left_to_programs(choice)
    assert environment.missing({}) == {}


def test_who_chose_keeps_the_choice(left_to_programs):
    assert environment.missing({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}


def test_no_such_choice(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "CHOICE", str(tmp_path / "none"))
    assert environment.missing({}) == {}


def test_the_program_starts_itself_again_with_the_same_arguments(left_to_programs, monkeypatch):
    class Started(Exception):
        pass

    def start(*arguments):
        raise Started(*arguments)

    monkeypatch.setattr(os, "execv", start)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "mlm_jax", "report", "a folder"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with pytest.raises(Started) as raised:
        __main__.main()
    assert raised.value.args == (sys.executable, [sys.executable, "-m", "mlm_jax", "report", "a folder"])
    assert os.environ.pop("GLIBC_TUNABLES") == "glibc.malloc.hugetlb=1"


def test_the_c_library_heeds_it():
    wanted = environment.missing({})
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" not in wanted:
        pytest.skip("huge pages are not left to programs here")
    faults = [
        int(
            subprocess.run([sys.executable, "-c", TOUCH], env=os.environ | more, capture_output=True, check=True).stdout
        )
        for more in ({"GLIBC_TUNABLES": ""}, wanted)
    ]
    assert faults[1] < faults[0] / 4
