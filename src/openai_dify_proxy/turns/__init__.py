"""One turn from request to events: app, conversation, question, stop."""
