"""The (alpha, beta)-generalized KL divergence and NC identification: arrays in, arrays out."""
