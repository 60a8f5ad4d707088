"""Components in Amaranth: one a module, each with its spec."""
