#!/usr/bin/env bash
# tests/ml/stack.sh — machine-learning libraries from PyPI: a virtual environment on the volume, installed, imported and used there; data on the volume too
#
# KFS_PIP (options for pip install, such as --no-index --find-links DIR) · KFS_ML_PYTHON (an interpreter that has venv, default the tests')
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
py=${KFS_ML_PYTHON:-$PY}
packages="numpy pandas pyarrow h5py zarr lmdb safetensors Pillow duckdb filelock tokenizers huggingface_hub hf_xet tensorboard tensorboardX webdataset"
export KRUN_LIMIT=280 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

if ! krun "$py" -m venv "$P/env" >"$T/venv.out" 2>&1; then
    if "$py" -m venv "$T/plain/env" >/dev/null 2>&1; then
        t_fail venv "$(tail -n 2 "$T/venv.out" | tr '\n' ' ')"
    else
        t_skip venv "'$py' cannot make virtual environments (Debian: python3-venv)"
    fi
    kfs_done
fi
t_pass venv
t_check venv-has-its-own-prefix "[ \"\$(krun $P/env/bin/python -c 'import sys; print(sys.prefix)')\" = $P/env ]"
# shellcheck disable=SC2086
if ! krun "$P/env/bin/pip" install -q ${KFS_PIP:-} $packages >"$T/pip.out" 2>&1; then
    if "$py" -m pip download -q --no-deps -d "$T/dl" filelock >/dev/null 2>&1; then
        t_fail pip-install "$(tail -n 3 "$T/pip.out" | tr '\n' ' ')"
    else
        t_skip pip-install "PyPI cannot be reached"
    fi
    kfs_done
fi
t_pass pip-install
cp "$KFS_TOP/tests/ml/stack.py" "$T/"
# shellcheck disable=SC2086
krun "$P/env/bin/python" "$T/stack.py" "$P/data" ${KFS_ML_CASES:-} >"$T/stack.out" 2>&1
rc=$?
cat "$T/stack.out"
grep -q '^not ok' "$T/stack.out" && t_failed=1
[ $rc -le 1 ] || t_fail stack "ended with code $rc"

# The environment again from a new kfsd and an empty cache; everything that pip recorded must have its hash.
kfsd_stop TERM
rm -rf "$T/cache"
cat >"$T/record.py" <<'P'
import base64, csv, glob, hashlib, os, sys
site = glob.glob(f"{sys.prefix}/lib/python*/site-packages")[0]
n = bad = 0
for record in glob.glob(f"{site}/*.dist-info/RECORD"):
    for name, digest, _ in csv.reader(open(record, newline="")):
        if not digest.startswith("sha256="):
            continue
        with open(os.path.join(site, name), "rb") as f:
            got = base64.urlsafe_b64encode(hashlib.sha256(f.read()).digest()).rstrip(b"=").decode()
        n += 1
        if got != digest[7:]:
            bad += 1
            print("differs:", name)
print(n, "files,", bad, "differ")
sys.exit(bad > 0 or n < 1000)
P
krun "$P/env/bin/python" "$T/record.py" >"$T/record.out" 2>&1
t_check environment-is-intact "[ $? = 0 ]" "$(tail -n 3 "$T/record.out" | tr '\n' ' ')"

# torch as the distribution packages it, when it is there, and the volume's tensorboard: data on the volume.
if "$PY" -c 'import torch' >/dev/null 2>&1; then
    krun "$PY" "$T/stack.py" "$P/torch" torch_loader torch_checkpoints torch_mapped
    [ $? = 0 ] || t_failed=1
else
    t_skip torch "not installed for '$PY' (Debian: python3-torch)"
fi
kfs_done
