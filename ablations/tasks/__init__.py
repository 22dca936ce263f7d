"""What a cell trains: the LightningModules."""
