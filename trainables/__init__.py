"""What happens inside one trial: data, base models, strategies, the training loop and sampling."""
