"""Make a base from pictures: pack, autoencoder, UNet with its pair."""
