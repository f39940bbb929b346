"""Drop-in replacements for what people use today."""
