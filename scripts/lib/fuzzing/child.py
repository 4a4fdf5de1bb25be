"""One target in a process of its own, since libFuzzer never returns: child.py TARGET, then libFuzzer's own options."""

import sys

import atheris

with atheris.instrument_imports(include=["protocol"]):
    from fuzzing.targets import TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
