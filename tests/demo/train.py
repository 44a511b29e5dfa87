#!/usr/bin/env python3
"""Train a small network on a directory of samples, one file each, and keep checkpoints.

usage: train.py DATA OUT [--epochs N] [--workers N]

Two worker processes read every sample file in each epoch, in an order shuffled anew. OUT/log.txt is appended to; OUT/checkpoint.npz is replaced
after each epoch (written beside it, synced, renamed). A run that finds a checkpoint goes on from there.
"""
import argparse
import glob
import multiprocessing
import os
import sys
import time

import numpy as np

BATCH = 32
HIDDEN = 48


def load(paths):
    x = np.stack([np.load(p).reshape(-1) for p in paths])
    y = np.array([int(os.path.basename(p).split("-")[1].split(".")[0]) for p in paths])
    return x, y


def batches(paths):
    return [paths[i:i + BATCH] for i in range(0, len(paths), BATCH)]


def model_new(inputs):
    rng = np.random.default_rng(1)
    return {
        "w1": rng.normal(0, 0.2, (inputs, HIDDEN)), "b1": np.zeros(HIDDEN),
        "w2": rng.normal(0, 0.2, (HIDDEN, 10)), "b2": np.zeros(10),
    }


def forward(model, x):
    hidden = np.maximum(0, x @ model["w1"] + model["b1"])
    scores = hidden @ model["w2"] + model["b2"]
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, e / e.sum(axis=1, keepdims=True)


def step(model, x, y, rate):
    hidden, p = forward(model, x)
    loss = -np.log(p[np.arange(len(y)), y] + 1e-12).mean()
    d = p
    d[np.arange(len(y)), y] -= 1
    d /= len(y)
    back = (d @ model["w2"].T) * (hidden > 0)
    model["w2"] -= rate * (hidden.T @ d)
    model["b2"] -= rate * d.sum(axis=0)
    model["w1"] -= rate * (x.T @ back)
    model["b1"] -= rate * back.sum(axis=0)
    return loss


def checkpoint_save(out, epoch, model):
    final = os.path.join(out, "checkpoint.npz")
    with open(final + ".tmp", "wb") as f:
        np.savez(f, epoch=epoch, **model)
        f.flush()
        os.fsync(f.fileno())
    os.replace(final + ".tmp", final)
    fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def checkpoint_load(out):
    try:
        with np.load(os.path.join(out, "checkpoint.npz")) as z:
            return int(z["epoch"]), {k: z[k] for k in z.files if k != "epoch"}
    except FileNotFoundError:
        return 0, None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("data")
    ap.add_argument("out")
    ap.add_argument("--epochs", type=int, default=10)
    ap.add_argument("--workers", type=int, default=2)
    a = ap.parse_args()

    train = sorted(glob.glob(os.path.join(a.data, "train", "*.npy")))
    test = sorted(glob.glob(os.path.join(a.data, "test", "*.npy")))
    if not train or not test:
        sys.exit(f"no samples in {a.data}")
    os.makedirs(a.out, exist_ok=True)
    first, model = checkpoint_load(a.out)
    if model is None:
        model = model_new(np.load(train[0]).size)
    print(f"starting at epoch {first} of {a.epochs}, {len(train)} training and {len(test)} test samples")

    with multiprocessing.Pool(a.workers) as pool, open(os.path.join(a.out, "log.txt"), "a") as log:
        for epoch in range(first, a.epochs):
            began = time.time()
            order = np.random.default_rng(epoch).permutation(len(train))
            losses = [step(model, x, y, 0.1) for x, y in pool.imap(load, batches([train[i] for i in order]))]
            checkpoint_save(a.out, epoch + 1, model)
            log.write(f"epoch {epoch} loss {np.mean(losses):.4f} seconds {time.time() - began:.2f}\n")
            log.flush()
        right = sum((forward(model, x)[1].argmax(axis=1) == y).sum() for x, y in pool.imap(load, batches(test)))
    print(f"accuracy {right / len(test):.4f}")


if __name__ == "__main__":
    main()
