"""Every numbered requirement has a test that names it, and no test names one that does not exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
SPEC = TESTS.parent / "protocol" / "SPEC.md"
NUMBER = re.compile(r"BF-\d{3}")


def test_requirements_and_tests_name_each_other() -> None:
    required = re.findall(r"^- \*\*(BF-\d{3})\*\*", SPEC.read_text(), re.MULTILINE)
    named = {number for file in TESTS.rglob("test_*.py") for number in NUMBER.findall(file.read_text())}
    named |= {number for file in TESTS.rglob("*contract*.py") for number in NUMBER.findall(file.read_text())}
    assert len(required) == len(set(required)) > 40
    assert set(required) - named == set(), "requirements without a test"
    assert named - set(required) == set(), "tests that name no requirement"
