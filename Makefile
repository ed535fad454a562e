# The two commands of the README:
#   make deploy   set everything up, then pick, compile, place and check a network for a Raspberry Pi 4
#   make test     set everything up, then lint, type-check and test
# As root, missing Debian packages are installed; otherwise the one command that does is printed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPLOY_OPTIONS ?= --target rpi4 --latency 20ms
PYTEST_OPTIONS ?= -n 2 --dist worksteal

.PHONY: deploy test test-tools lint setup clean

deploy: setup
	$(BIN)/edgeofa deploy $(DEPLOY_OPTIONS)

test: $(VENV)/.test setup test-tools lint
	$(BIN)/pytest $(PYTEST_OPTIONS)

# an ssh server for the loopback boards of the tests, and what builds, emulates and flashes
# microcontrollers; tests that need what is not there are skipped
TOOLS := sshd:openssh-server ssh:openssh-client \
  arm-none-eabi-gcc:gcc-arm-none-eabi qemu-system-arm:qemu-system-arm \
  gdb-multiarch:gdb-multiarch stm32flash:stm32flash openocd:openocd \
  clang-19:clang-19
test-tools:
	@missing=""; for tool in $(TOOLS); do \
	  PATH="$$PATH:/usr/sbin" command -v "$${tool%%:*}" >/dev/null || missing="$$missing $${tool#*:}"; done; \
	if [ -n "$$missing" ]; then \
	  case "$$missing" in *arm-none-eabi*) missing="$$missing libnewlib-arm-none-eabi";; esac; \
	  case "$$missing" in *clang*) missing="$$missing libclang-rt-19-dev";; esac; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 $$missing; \
	  else echo "some tests will be skipped; to run them: apt-get install$$missing"; fi; fi

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.default
	$(BIN)/edgeofa setup --target rpi4 --install

# stamps, not .venv/bin/python: a half-made environment must not count as one
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "edgeofa needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 4; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; \
	  else echo "Python cannot make virtual environments yet; run: sudo apt-get install python3-venv"; exit 4; fi; }
	$(PYTHON) -m venv $(VENV)
	# dependency groups came with pip 25.1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@touch $@

$(VENV)/.default: pyproject.toml | $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.default
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group test --group lint
	@touch $@

clean:
	rm -rf $(VENV) build dist
