"""From tensors to bytes and back: a recipe names the codec, a payload carries one model's tensors."""
