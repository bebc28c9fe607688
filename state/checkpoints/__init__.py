"""What a checkpoint leaves in the store: numbers, manifests, snapshots as chains of tables, and their pruning."""
