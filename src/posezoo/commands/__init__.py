"""What the `posezoo` command can do, by subject; `posezoo.cli` puts it together."""
