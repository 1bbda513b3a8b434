"""Is a generated set any good: distributions, the four aspects of each pair, memorisation."""
