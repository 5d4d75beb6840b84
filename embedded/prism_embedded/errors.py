"""What the embedded parts raise: one line that says what, where and what next."""


class EmbeddedError(Exception):
    """The embedded broker or model server cannot do what was asked; its text is fit for a user."""
