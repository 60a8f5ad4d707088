"""Golden model, cycle model, and simulators."""
