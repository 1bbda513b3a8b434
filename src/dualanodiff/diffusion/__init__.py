"""The diffusion mathematics: losses and the guided sampling loop, pure functions of a model."""
