"""The front door: HTTP/1.1 connections on uvicorn's protocol, with limits and timeouts against hostile clients."""

from openai_dify_proxy.server.front_door import FrontDoor as FrontDoor
from openai_dify_proxy.server.limits import HttpLimits as HttpLimits
from openai_dify_proxy.server.limits import http_limits as http_limits
