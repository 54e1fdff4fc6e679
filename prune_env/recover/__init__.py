"""Training: from scratch, short training for a comparison, and fine-tuning with the dense network as teacher."""

from prune_env.recover.batches import Batches
from prune_env.recover.loss import training_loss
from prune_env.recover.teacher import Teacher
from prune_env.recover.train import train_network
from prune_env.recover.trainer import Epoch, Trainer
from prune_env.recover.workers import Workers

__all__ = ["Batches", "Epoch", "Teacher", "Trainer", "Workers", "train_network", "training_loss"]
