"""What the command line is made of: arguments in, answers out, for people and for machines. The commands themselves are in `cli.py`."""
