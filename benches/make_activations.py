"""Writes activations of a convolutional layer for measurements of dictionaries.

    pip install torch numpy
    python benches/make_activations.py CIFAR-10-FOLDER FOLDER

Trains a small network on `data_batch_1.bin` of CIFAR-10 (binary version) for five epochs, and
writes the output of its second layer (convolution and ReLU) for other images: `act.npy`
(1200,256,14,14) and `act_test.npy` (200,256,14,14), 32-bit floats.

    python benches/make_activations.py --baselines FOLDER

prints the explained variance of the test activations by the first 32 components of a PCA, and by 32
of 4,096 random atoms of length 1 at each position (orthogonal matching pursuit), beside which
`csae eval` stands.
"""

import sys
from pathlib import Path

import numpy as np


def images(path, start, count):
    raw = np.fromfile(path, np.uint8).reshape(-1, 3073)[start : start + count]
    return raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255, raw[:, 0].astype(np.int64)


def make(cifar, folder):
    import torch
    from torch import nn

    torch.manual_seed(1)
    layer = nn.Sequential(
        nn.Conv2d(3, 64, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 256, 3, padding=1), nn.ReLU()
    )
    head = nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(256, 128, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3200, 10)
    )
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 1e-3)
    x, t = map(torch.from_numpy, images(cifar / "data_batch_1.bin", 0, 8000))
    for epoch in range(5):
        order = torch.randperm(len(x))
        for batch in order.split(64):
            loss = nn.functional.cross_entropy(head(layer(x[batch] - 0.5)), t[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)
    x, t = map(torch.from_numpy, images(cifar / "data_batch_1.bin", 8000, 1400))
    with torch.no_grad():
        maps = torch.cat([layer(part - 0.5) for part in x.split(100)])
        right = (head(maps).argmax(1) == t).float().mean().item()
    print(f"accuracy on other images: {right:.3f}")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "act.npy", maps[:1200].numpy())
    np.save(folder / "act_test.npy", maps[1200:].numpy())


def rows(path, count):
    maps = np.load(path).transpose(0, 2, 3, 1).reshape(-1, 256)
    return maps[np.random.default_rng(1).permutation(len(maps))[:count]].astype(np.float64)


def explained(x, y):
    return 1 - ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()


def baselines(folder):
    train, test = rows(folder / "act.npy", 50000), rows(folder / "act_test.npy", 2000)
    mean = train.mean(0)
    _, vectors = np.linalg.eigh(np.cov(train.T))
    first = vectors[:, ::-1][:, :32]
    print("PCA, 32 components:", explained(test, (test - mean) @ first @ first.T + mean))
    atoms = np.random.default_rng(2).normal(size=(4096, 256))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    result = np.empty_like(test)
    for i, x in enumerate(test - mean):
        chosen, rest = [], x
        for _ in range(32):
            chosen.append(int(np.abs(atoms @ rest).argmax()))
            basis = atoms[chosen].T
            rest = x - basis @ np.linalg.lstsq(basis, x, rcond=None)[0]
        result[i] = x - rest + mean
    print("32 of 4,096 random atoms:", explained(test, result))


def main():
    if sys.argv[1] == "--baselines":
        baselines(Path(sys.argv[2]))
    else:
        make(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
