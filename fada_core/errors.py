"""The error type for a user's mistakes; its message is one sentence that says what is wrong and what to do."""


class FadaError(ValueError):
    """Raised for bad input; the message is shown to the user as it is."""
