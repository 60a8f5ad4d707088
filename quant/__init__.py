"""From floats to integers: number formats, quantised layers, training, export."""
