"""The description of the API as an OpenAPI document.

``routes`` describes every route of the route table in ``app``; ``document`` joins these descriptions with the schemas
of the messages, which ``schemas`` derives from the structs that the handlers decode and encode.
"""
