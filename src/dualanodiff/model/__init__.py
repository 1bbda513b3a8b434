"""The dual model: a frozen Stable Diffusion base, and what is learned beside it."""
