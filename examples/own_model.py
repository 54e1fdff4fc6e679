"""Prune a network of your own with your own DataLoader: `python examples/own_model.py`.

A small CNN learns scikit-learn's digits, loses half of its multiply-adds, and is fine-tuned.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import prune_env

Loader = DataLoader[tuple[Tensor, ...]]


def my_network() -> nn.Module:
    """Three convolutions with batch norms; take your own network instead."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def my_data() -> tuple[Loader, Loader]:
    """Digits of 8x8 pixels, normalised as the network takes them."""
    digits = load_digits()
    images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16 - 0.3) / 0.38
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1347], order[1347:]
    return (
        DataLoader(TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True),
        DataLoader(TensorDataset(images[test], labels[test]), batch_size=64),
    )


def train_it(model: nn.Module, loader: Loader, epochs: int = 8) -> None:
    """A plain training loop; any other one will do."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main() -> None:
    torch.manual_seed(0)
    model, (train, test) = my_network(), my_data()
    train_it(model, train)

    result = prune_env.prune(model, train, test, keep=0.5, evaluations=30, finetune_epochs=4)

    print(result.summary())
    print(result.model)  # the same layers with fewer channels
    print(result.plan.widths)  # how many channels stay, by unit


if __name__ == "__main__":
    main()
