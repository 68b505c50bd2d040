"""The settings with their types, defaults and descriptions; ``sources`` reads their values.

Each setting is described here and nowhere else: ``scripts/docs`` writes ``docs/settings.md`` and ``.env.example`` from
the docstrings of the fields, and ``--help`` shows them. They are Markdown, in the form that ``descriptions`` defines.
The docstring of a section is its heading in ``.env.example``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le

from openai_dify_proxy.settings.audio import AudioSettings
from openai_dify_proxy.settings.console import ConsoleSettings
from openai_dify_proxy.settings.files import FileSettings
from openai_dify_proxy.settings.human_input import HumanInputSettings
from openai_dify_proxy.settings.image_model_settings import ImageModelSettings
from openai_dify_proxy.settings.keys import ClientKeySettings, EndUserSettings, KeySettings
from openai_dify_proxy.settings.limits import LimitSettings
from openai_dify_proxy.settings.markers import Shown
from openai_dify_proxy.settings.network import NetworkSettings
from openai_dify_proxy.settings.secret import SecretStr
from openai_dify_proxy.settings.shutdown import ShutdownSettings
from openai_dify_proxy.settings.telemetry import TelemetrySettings
from openai_dify_proxy.settings.tools import ToolSettings
from openai_dify_proxy.settings.usage import UsageSettings
from openai_dify_proxy.settings.values import (
    ApiUrl,
    AppConversations,
    AppMode,
    Bytes,
    DifyUrl,
    EndUserId,
    Flag,
    Form,
    GatewayUrl,
    Heartbeat,
    Hosts,
    HumanInput,
    ImageModelName,
    Inputs,
    Key,
    Keys,
    MaxConcurrent,
    Networks,
    Origins,
    Patterns,
    PersonalKeys,
    PictureLinks,
    Progress,
    Seconds,
    SecondsOrNone,
    Secret,
    StateUrl,
    StoreUrl,
    SystemPrompt,
    TaskCalls,
    Template,
    Text,
    Tools,
    UnsupportedParameters,
    UploadUrl,
    WebUrl,
)
from openai_dify_proxy.translate.dify.transcript import TEMPLATE

_STATE_URL = SecretStr("sqlite:///~/.local/share/openai-dify-proxy/state.db")


class SettingsError(Exception):
    """The settings are invalid; ``problems`` holds one sentence for each reason, without secrets.

    ``warnings`` are those of ``Settings``.
    """

    def __init__(self, problems: list[str], warnings: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.warnings = warnings


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """One Dify app, which clients see as a model: a table ``[apps.<name>]``."""

    name: Text
    """The name of the table, which is the name of the OpenAI model."""
    api_key: Key
    """The app's key (`app-…`), from the page "API Access" in Dify."""
    api_key_env: Text | None = None
    """The environment variable that holds the key. Each app needs either this or `api_key`."""
    api_url: Annotated[DifyUrl, Shown(default="`DIFY_API_URL`")]
    """The base URL of the Dify that holds this app."""
    aliases: Patterns = ()
    """Other model names that select the app. `*`, `?` and `[…]` are wildcards, as in file names."""
    mode: Annotated[AppMode | None, Shown(default="detected")] = None
    """`chat`, `agent-chat`, `advanced-chat` (a chatflow), `completion`, `workflow` or `agent`.

    By default the proxy asks Dify for it."""
    input_variable: Annotated[Text | None, Shown(default="detected")] = None
    """The input for the user's text, in workflow and completion apps.

    [How it is detected](apps.md#workflow-and-completion-apps)."""
    output_variable: Annotated[Text | None, Shown(default="detected")] = None
    """The output that is the answer, in workflow apps."""
    system_prompt: SystemPrompt = "auto"
    """Where [system messages](apps.md#system-messages) go: `auto`, `query`, `drop` or `input:<variable>`."""
    progress: Progress = "off"
    """`reasoning` shows an agent's steps and the titles of nodes as [reasoning](apps.md#progress); `off` omits them."""
    inputs: Inputs = field(default_factory=dict)
    """Values for the app's inputs that a request does not set."""
    conversations: Annotated[AppConversations | None, Shown(default="`CONVERSATIONS`")] = None
    """How earlier messages reach this app: `auto`, `transcript` or `last-message`."""
    tools: Annotated[Tools | None, Shown(default="`TOOLS`")] = None
    """Whether the app's model calls the client's tools and follows its schemas: `auto`, `emulate`, `ignore` or
    `reject`."""
    human_input: Annotated[HumanInput | None, Shown(default="`HUMAN_INPUT`")] = None
    """How the form of a paused run reaches clients: `auto`, `tool` or `text`."""


@dataclass(frozen=True, kw_only=True)
class DifySettings:
    """Dify"""

    dify_api_url: Annotated[DifyUrl | None, Shown(example="https://api.dify.ai/v1")] = None
    """The base URL of the Dify API, such as `https://api.dify.ai/v1`; `/v1` is optional.

    Without it, and without configured apps, `serve` offers the [demo](demo.md) apps."""
    dify_api_key: Key | None = None
    """The key of one app (`app-…`), which then answers every model name. For several apps, use `CONFIG_FILE`.

    Clients see the app as the model `dify`."""
    dify_max_concurrent: MaxConcurrent = "auto"
    """How many turns run at once in one Dify: `auto`, a number, or `off` for no limit.

    A Dify API process serves ten connections and answers nothing beyond them, so further turns
    [wait](concurrency.md). `auto` starts at 8 and finds how many more Dify serves; `api.dify.ai` has no
    limit then. A number should be two less than Dify's connections, which stop calls need. Apps with the same URL
    share the limit, and so do all processes with the same `STATE_URL`."""
    max_queued_turns: Annotated[int, Ge(1)] = 100
    """The number of turns that may wait for one Dify in one process. A further one gets a 429.

    A caller with less than an equal share of the places enters the queue all the same, up to twice the number. The
    429 has a [`Retry-After`](concurrency.md#who-waits-and-for-how-long). As many turns may wait for other turns of
    their conversations."""
    input_variable: Annotated[Text | None, Shown(default="detected")] = None
    """The input for the user's text, in workflow and completion apps.

    Applies to the app of `DIFY_API_KEY` and to apps whose key a request brings.
    [How it is detected](apps.md#workflow-and-completion-apps)."""
    output_variable: Annotated[Text | None, Shown(default="detected")] = None
    """The output that is the answer, in workflow apps.

    Applies to the same apps as `INPUT_VARIABLE`."""
    config_file: Text | None = None
    """A TOML file with [apps](#many-apps) and [image models](#image-models)."""
    default_app: Annotated[Text | None, Shown(default="the app of `DIFY_API_KEY`")] = None
    """The configured app that answers unknown model names.

    Without a default app, an unknown model name gets a 404."""


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """Access"""

    api_keys: Keys = ()
    """The keys that clients must present.

    Clients send them as `Authorization: Bearer …`, `api-key: …` or `X-API-Key: …`."""
    personal_keys: PersonalKeys = ()
    """Client keys that each belong to one [end user](conversations.md#personal-keys): `sk-one=anna,sk-two=bert`.

    A request with such a key acts for that end user, even if it names another."""
    allow_anonymous: Flag = False
    """Serve other machines without client keys, although the server holds a credential that callers could spend.

    Credentials are Dify keys, a Replicate token, and accounts for IPFS or an object store. Without this setting the
    server refuses to start in that case."""
    passthrough_keys: Flag = True
    """Accept [Dify keys in requests](api.md#keys)."""
    cors_origins: Origins = ()
    """The origins of web pages that may call from a browser, such as `https://chat.example.com`; `*` allows all."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Server"""

    host: Text = "127.0.0.1"
    """The address to listen on; `0.0.0.0` accepts connections from every network.

    Set `API_KEYS` before you open the server to other machines."""
    port: Annotated[int, Ge(0), Le(65535)] = 8223
    """The port to listen on; `0` selects a free one."""
    workers: Annotated[int, Ge(1)] = 1
    """The number of processes that serve the port."""
    trusted_proxies: Networks = ()
    """Addresses and networks of reverse proxies in front of the server: `10.0.0.2,172.16.0.0/12`.

    Only their `X-Forwarded-For` and `X-Forwarded-Proto` headers count. The client is the last address that is
    not a trusted proxy."""


@dataclass(frozen=True, kw_only=True)
class TimeSettings:
    """Time limits"""

    connect_timeout: Seconds = 10
    """Time limit for a connection to Dify, Replicate, IPFS or the host of a picture."""
    queue_timeout: Seconds = 50
    """Time limit for the wait for Dify if the answer is not streamed; then a 503.

    Streams and background responses wait for up to `SILENCE_TIMEOUT`."""
    silence_timeout: Seconds = 300
    """Time limit for the first event from Dify.

    A run that waits in Dify's queue sends no event until it starts."""
    turn_timeout: Seconds = 1260
    """Time limit for one whole answer; the run is then stopped.

    The default is just above the 1200 seconds after which Dify itself stops a run."""
    first_event_grace: SecondsOrNone = 2
    """How long a streaming answer delays its status line.

    A failure within that time has its own status (400, 429, 502, …); a later one is an error frame in the stream."""
    heartbeat_interval: Seconds = 15
    """The time between two heartbeats to a streaming client while Dify sends nothing."""
    heartbeat: Heartbeat = "chunk"
    """The form of a heartbeat: `chunk` (a chunk with an empty delta), `comment` (an SSE comment) or `off`.

    Every known client accepts `chunk`. During reasoning the heartbeat is a comment, since some clients take any other
    delta for the end of the reasoning."""


@dataclass(frozen=True, kw_only=True)
class ConversationSettings:
    """Conversations"""

    conversations: AppConversations = "auto"
    """How earlier messages reach an app: `auto`, `transcript` or `last-message`.

    `auto` continues the Dify conversation that the client's history leads to. `transcript` sends all messages each
    time, `last-message` only the last. An app may have [its own](#many-apps)."""
    transcript_template: Annotated[
        Template, Shown(default="[the template shown there](conversations.md#the-transcript)")
    ] = TEMPLATE
    """The wording of a question that includes earlier messages: `{history}`, and after it `{question}`.

    A line end is written as `\\n`."""
    end_user_id: EndUserId = "derived"
    """How end users are named in Dify: by `derived` names, which cannot be guessed, or `plain` ones, as sent.

    `plain` is allowed with at most one client key."""
    task_calls: TaskCalls = "app"
    """The answer to [side calls](conversations.md#side-calls) (titles, tags, …): that of the `app`, or a placeholder
    (`off`)."""
    task_model: Text | None = None
    """The configured app that answers side calls, instead of the app of the chat."""


@dataclass(frozen=True, kw_only=True)
class StateSettings:
    """State: which Dify conversation continues which chat, and stored responses"""

    state_url: Annotated[
        StateUrl, Shown(default="`sqlite:///~/.local/share/openai-dify-proxy/state.db`, below `$XDG_DATA_HOME` if set")
    ] = _STATE_URL
    """The store: `sqlite:///path` on one machine, `redis://…` or `valkey://…` for several replicas, or `memory://`."""
    state_max_entries: Annotated[int, Ge(1)] = 200_000
    """The largest number of entries; beyond it, the callers with the most entries lose their oldest ones."""
    state_max_bytes: Bytes = 1024**3
    """The largest size of all entries, keys included; beyond it, the callers that hold the most bytes lose their oldest
    entries.

    One entry has at most 16 MiB."""
    conversation_ttl: Seconds = 30 * 86_400
    """How long a conversation can be continued after its last turn.

    A later turn starts a new one, with the earlier messages as a transcript."""


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Images"""

    replicate_api_token: Key | None = None
    """The token of a Replicate account (`r8_…`), which image requests are billed to."""
    replicate_api_url: ApiUrl = "https://api.replicate.com/v1"
    """The base URL of the Replicate API."""
    replicate_output_hosts: Hosts = ()
    """Hosts (`cdn.example.com`) or origins (`http://127.0.0.1:9000`) of output pictures, besides Replicate's own.

    Plain HTTP and private addresses are allowed only for these."""
    image_model: Text = "stability-ai/sdxl"
    """The default model, also for OpenAI's model names (`dall-e-3`, `gpt-image-1`, …).

    A Replicate model, or a [configured name](#image-models)."""
    image_upscaler: ImageModelName | None = None
    """The model that upscales the pictures of models that cannot (`X-Replicate-Upscale`)."""
    enhance_prompt_app: Text | None = None
    """The configured app that rewrites prompts for models that cannot (`X-Replicate-Enhance-Prompt`)."""
    unsupported_parameters: UnsupportedParameters = "reject"
    """How to treat a header or input that the model does not accept: `reject`, `warn` or `drop`.

    `reject` answers with an error that names it. `warn` omits it and names it in the response header
    `X-Unsupported-Parameters`. `drop` omits it silently."""
    allow_unsafe_images: Flag = True
    """Allow requests to disable a model's safety checker."""
    image_timeout: Seconds = 300
    """Time limit for one whole image request; its predictions are then cancelled."""
    image_concurrency: Annotated[int, Ge(1)] = 4
    """The number of predictions that one request may run at once."""


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """Pictures"""

    image_storage_dir: Annotated[
        Text, Shown(default="`~/.local/share/openai-dify-proxy/pictures`, below `$XDG_DATA_HOME` if set")
    ] = "~/.local/share/openai-dify-proxy/pictures"
    """The directory that stores pictures; replicas and workers may share it."""
    picture_store: StoreUrl | None = None
    """An object store instead of the directory: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    [Options](pictures.md#object-stores) follow a `?`. Requires the [extra](cli.md#extras) `s3`."""
    max_picture_bytes: Bytes = 32 * 1024 * 1024
    """The largest picture that is accepted or stored."""
    picture_retention: Annotated[Seconds | None, Shown(default="forever")] = None
    """How long pictures are stored, such as `30d`.

    Older pictures are removed, except those still waiting for their upload to IPFS."""
    store_prompts: Flag = False
    """Store the prompt in the record beside a picture."""
    public_url: Annotated[WebUrl | None, Shown(default="the address in the request")] = None
    """The address under which clients reach the server, for links to pictures: `https://ai.example.com`."""
    picture_links: PictureLinks = "local"
    """The links in answers: `local` for the server's own, `ipfs` for those of `IPFS_GATEWAY_URL`.

    A picture that is not on IPFS yet has a local link."""


@dataclass(frozen=True, kw_only=True)
class IpfsSettings:
    """IPFS: uploads are public and cannot be withdrawn"""

    ipfs_upload_url: UploadUrl | None = None
    """The upload URL: a Kubo node (`http://127.0.0.1:5001`), or the full URL of [a service](pictures.md#ipfs).

    Without it nothing is uploaded."""
    ipfs_upload_auth: Secret | None = None
    """The full value of the `Authorization` header of uploads, such as `Bearer TOKEN`."""
    ipfs_upload_field: Text = "file"
    """The form field that holds the picture."""
    ipfs_upload_form: Form = field(default_factory=dict)
    """Further form fields: `network=public,cid_version=1`."""
    ipfs_gateway_url: GatewayUrl | None = None
    """The URL of a picture on an IPFS gateway, with `{cid}` in it.

    For example `https://ipfs.io/ipfs/{cid}` or `https://{cid}.ipfs.dweb.link/`."""
    ipfs_timeout: Seconds = 60
    """Time limit for one upload."""


@dataclass(frozen=True, kw_only=True)
class Settings(
    # The fields of the last base come first.
    IpfsSettings,
    PictureSettings,
    ImageSettings,
    UsageSettings,
    StateSettings,
    ConsoleSettings,
    FileSettings,
    AudioSettings,
    HumanInputSettings,
    ToolSettings,
    EndUserSettings,
    ConversationSettings,
    ShutdownSettings,
    NetworkSettings,
    TimeSettings,
    LimitSettings,
    TelemetrySettings,
    ServerSettings,
    KeySettings,
    AccessSettings,
    DifySettings,
):
    """All settings, validated. The constructor reads no source and validates nothing; ``load_settings`` does."""

    apps: dict[str, AppSettings] = field(default_factory=dict)
    """The configured apps by model name."""
    image_models: dict[str, ImageModelSettings] = field(default_factory=dict)
    """The configured image models by model name."""
    keys: dict[str, ClientKeySettings] = field(default_factory=dict)
    """The configured client keys with limits, by name."""
    unprotected: str | None = None
    """Why the server must not start without client keys in the state, found by ``load_settings``; not a setting."""
    warnings: tuple[str, ...] = ()
    """Probable mistakes in the sources, found by ``load_settings``; not a setting."""

    @property
    def client_keys(self) -> tuple[tuple[SecretStr, str | None], ...]:
        """The client keys without a name, each with the end user that it is pinned to."""
        return (*((key, None) for key in self.api_keys), *self.personal_keys)

    @property
    def number_of_keys(self) -> int:
        """The number of client keys in the settings."""
        return len(self.client_keys) + len(self.keys)


SECTIONS: tuple[type[Any], ...] = Settings.__bases__[::-1]
"""The sections of the settings, in the order of the docs."""
