"""What is fuzzed: by name, a function of any bytes that fails by raising, and seeds."""

from typing import Final

from fuzzing import codes, messages, payloads
from fuzzing.compare import Target

TARGETS: Final[dict[str, Target]] = {**payloads.TARGETS, **codes.TARGETS, **messages.TARGETS}
