"""Photos from anyone made safe for a model: bytes of anything in, an upright plain JPEG or a refusal out."""
