"""What to do about demand: pure functions from needs, limits and memory to decisions with their reasons."""
