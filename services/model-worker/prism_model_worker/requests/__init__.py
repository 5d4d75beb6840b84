"""Photo and text requests, pure: a record in, what to ask a model, its answer checked, a reply to send."""
