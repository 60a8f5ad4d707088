"""The link between a host and the accelerator, and buses of systems on a chip."""
