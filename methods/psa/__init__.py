"""PSA: seeds refined by a random walk along affinities that a network learns from them."""
