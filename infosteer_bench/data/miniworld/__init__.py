"""The embedded world: invented creatures, small numbers, and the models that were pretrained on them."""
