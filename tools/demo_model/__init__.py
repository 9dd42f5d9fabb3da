"""The demo model: its data by rule, its training and its evaluation. `make demo-model` makes it anew."""
