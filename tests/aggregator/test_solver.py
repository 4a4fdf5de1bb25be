"""The solver is scipy's, and whatever C prints meanwhile is no part of a program's output."""

import subprocess
import sys

import numpy as np

from aggregator.solver import milp

PRINTS = """
import ctypes
from aggregator import solver
with solver._notes_to_stderr():
    ctypes.CDLL(None).puts(b"a note of HiGHS")
print("[1, 2]")
"""


def test_it_solves():
    found = milp(np.array([-1.0, -2.0]), integrality=np.ones(2), bounds=(0, 3))
    assert found.x.tolist() == [3.0, 3.0]


def test_notes_of_c_go_to_standard_error_even_through_a_pipe():
    ran = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True)
    assert ran.stdout == "[1, 2]\n"
    assert ran.stderr == "a note of HiGHS\n"
