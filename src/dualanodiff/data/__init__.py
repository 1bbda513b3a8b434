"""From a folder of pictures and masks to the shots that a run learns from."""
