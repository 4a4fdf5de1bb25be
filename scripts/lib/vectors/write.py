"""Writes tests/conformance/v1: what is missing, and never what is there.

A vector that is once written stays. More of them come in a file of their own, with a new name; `SHA256SUMS` names all
of them, so that a file that changed shows, here and wherever somebody copied them to.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Final

from vectors import Files, Vector, coders, envelopes, payloads, refused, refused_payloads, tables, tensors

FOLDER: Final = Path(__file__).parent.parent.parent.parent / "tests" / "conformance" / "v1"
SUMS: Final = "SHA256SUMS"


FILES: Final[Files] = {
    **coders.FILES,
    **tensors.FILES,
    **payloads.FILES,
    **envelopes.FILES,
    **refused.FILES,
    **refused_payloads.FILES,
    **tables.FILES,
}
"""By name below the folder, which sorts them in the order in which a decoder is best written."""


def main() -> None:
    """Write what is missing, then the sums of everything."""
    for name, content in FILES.items():
        path = FOLDER / name
        if path.exists():
            print(f"kept     {name}")
            continue
        data = as_bytes(content())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"written  {name}  {len(data)} bytes")
    (FOLDER / SUMS).write_text(sums())


def as_bytes(content: Vector | bytes) -> bytes:
    """As it lies in the file: a vector a line."""
    if isinstance(content, bytes):
        return content
    lines = ",\n".join(f"  {json.dumps(vector, ensure_ascii=False)}" for vector in content["vectors"])
    head = "".join(f" {json.dumps(name)}: {json.dumps(content[name])},\n" for name in content if name != "vectors")
    return f'{{\n{head} "vectors": [\n{lines}\n ]\n}}\n'.encode()


def sums() -> str:
    """What `sha256sum -c` reads: the sums that are written down already, and those of files that have none."""
    path = FOLDER / SUMS
    known = {line[66:]: line[:64] for line in path.read_text().splitlines()} if path.exists() else {}
    files = sorted(file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*") if file.is_file())
    digests = {file: known.get(file) or sha256((FOLDER / file).read_bytes()).hexdigest() for file in files}
    return "".join(f"{digest}  {file}\n" for file, digest in digests.items() if file != SUMS)
