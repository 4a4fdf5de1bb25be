"""`python -m reproduce <study> …`: what the stubs in scripts/reproduce call."""

import sys

from reproduce.cli import main
from reproduce.fbq import Fbq
from reproduce.fedaq import FedAq
from reproduce.fedzip import Fedzip
from reproduce.oqfl import Oqfl
from reproduce.qrfl import Qrfl
from reproduce.study import Study

STUDIES: dict[str, type[Study]] = {"fbq": Fbq, "qrfl": Qrfl, "oqfl": Oqfl, "fedzip": Fedzip, "fedaq": FedAq}

if __name__ == "__main__":
    # the stub's name is not one of the arguments that the evidence document repeats
    sys.exit(main(STUDIES[sys.argv.pop(1)]()))
