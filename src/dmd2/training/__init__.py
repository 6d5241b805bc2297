"""Training: the LightningModules and what watches them."""
