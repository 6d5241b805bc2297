"""Data: LightningDataModules and their preparation. They know no model, and no model knows them."""
