"""What will be needed: numpy and the standard library only, functions of their arguments, time included."""
