"""What the operator sees of the server: logs, one record per request, metrics and traces."""

from openai_dify_proxy.telemetry.access_log import AccessLog as AccessLog
from openai_dify_proxy.telemetry.ids import new_id as new_id
from openai_dify_proxy.telemetry.logs import LogFormat as LogFormat
from openai_dify_proxy.telemetry.logs import bind_request as bind_request
from openai_dify_proxy.telemetry.logs import configure_logging as configure_logging
from openai_dify_proxy.telemetry.logs import escape_unprintable as escape_unprintable
from openai_dify_proxy.telemetry.logs import unbind_request as unbind_request
from openai_dify_proxy.telemetry.records import RequestRecord as RequestRecord
from openai_dify_proxy.telemetry.records import RequestRecords as RequestRecords
from openai_dify_proxy.telemetry.records import Trace as Trace
