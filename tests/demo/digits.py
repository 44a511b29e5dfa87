#!/usr/bin/env python3
"""Store scikit-learn's handwritten digits, one small file per sample: DATA/{train,test}/NNNN-LABEL.npy"""
import os
import sys

import numpy as np
from sklearn.datasets import load_digits


def main(data):
    digits = load_digits()
    for part in "train", "test":
        os.makedirs(os.path.join(data, part))
    for i, (image, label) in enumerate(zip(digits.images, digits.target)):
        part = "test" if i % 5 == 0 else "train"
        np.save(os.path.join(data, part, f"{i:04d}-{label}.npy"), image.astype(np.float32) / 16)
    print(f"{len(digits.target)} samples")


if __name__ == "__main__":
    main(sys.argv[1])
