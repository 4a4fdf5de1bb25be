# Sourced by the scripts beside it: one virtual environment, made when there is none.
#
#   environment edge|demo|dev|bench|fuzz   make .venv hold bitfleet with these extras; sets $PYTHON
#
#   flower                       makes the one that bench/merge's rival runs in; sets BITFLEET_FLOWER
#
# BITFLEET_VENV   another place for the environment
# BITFLEET_FLOWER a virtual environment that has Flower already
# BITFLEET_TORCH  another torch requirement, for example torch==2.9.1 on a board

environment() {
    local extras=$1 venv=${BITFLEET_VENV:-.venv} state
    state=$(cat pyproject.toml aggregator/merge/_kernel.c edge/training/quantizers/_kernel.c protocol/operators/native/* | cksum | cut -d' ' -f1)
    PYTHON="$venv/bin/python"
    if [ -e "$venv/bitfleet-$extras-$state" ]; then
        return
    fi
    if [[ "$extras" =~ ^(edge|demo|fuzz)$ ]] && [ -e "$venv/bitfleet-dev-$state" ]; then
        return # dev includes everything that these have
    fi

    if [ ! -x "$PYTHON" ]; then
        say "making a virtual environment in $venv"
        "$(newest_python)" -m venv "$venv"
    fi
    if [[ ! "$extras" =~ ^(edge|fuzz)$ ]] && ! "$PYTHON" -c 'import torch' 2>/dev/null; then
        say "installing torch, its CPU build (about 200 MB, once)"
        install_torch
    fi
    say "installing bitfleet with the extras of '$extras' (a minute or two, once)"
    quietly "$PYTHON" -m pip install --disable-pip-version-check --editable ".[$extras]"
    touch "$venv/bitfleet-$extras-$state"
    say "ready"
}

# Flower pins versions that do not go together with ours, so it gets an environment of its own.
flower() {
    if [ -n "${BITFLEET_FLOWER:-}" ]; then
        return
    fi
    export BITFLEET_FLOWER=.venv-flower
    if [ ! -e "$BITFLEET_FLOWER/ready" ]; then
        say "installing Flower, which is measured beside us, in $BITFLEET_FLOWER (once)"
        "$(newest_python)" -m venv "$BITFLEET_FLOWER"
        quietly "$BITFLEET_FLOWER/bin/python" -m pip install --disable-pip-version-check 'flwr==1.41.*'
        touch "$BITFLEET_FLOWER/ready"
    fi
}

# On x86-64 Linux the registry's plain torch brings gigabytes of CUDA; +cpu names the build without it.
install_torch() {
    local wanted=${BITFLEET_TORCH:-torch==2.13.0}
    if [ "$(uname -sm)" = "Linux x86_64" ] && [ -z "${BITFLEET_TORCH:-}" ]; then
        wanted=$wanted+cpu
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$wanted" && return
    cat >&2 <<MESSAGE
No $wanted was found where pip looks. Its index is named on PyTorch's own "Start locally" page (choose CPU):
    PIP_EXTRA_INDEX_URL=<that address> $0
or take what your registry has, CUDA and all:
    BITFLEET_TORCH=torch==2.13.0 $0
MESSAGE
    exit 1
}

newest_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python of at least 3.11 was found; install one, with its venv module." >&2
    exit 1
}

# Runs a command and shows its output only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}

say() {
    echo "[bitfleet] $*" >&2
}
