"""One turn, from the request to events: app, conversation, request to Dify, stop."""
