"""What the API answers: response models with their meaning, and how rows become them."""
