"""The settings with their types and defaults; ``sources`` reads their values."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr

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
    ImageModelName,
    Inputs,
    Key,
    Keys,
    LogFormat,
    LogLevel,
    MaskColour,
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
    UnsupportedParameters,
    UploadUrl,
    WebUrl,
)
from openai_dify_proxy.translate.dify.transcript import TEMPLATE


class SettingsError(Exception):
    """The settings are invalid; ``problems`` holds one sentence for each reason, without secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class AppSettings(BaseModel):
    """One Dify app, which clients see as a model."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=False
    )

    name: Text
    """The OpenAI model name: the key in ``[apps.<name>]``."""
    api_key: Key
    """The app's key, from Dify's page "API Access"."""
    api_url: DifyUrl
    """The Dify that holds the app; ``DIFY_API_URL`` when the file names none."""
    aliases: Patterns = ()
    """Other names that select the app; ``*``, ``?`` and ``[…]`` match as in file names."""
    mode: AppMode | None = None
    """The app's kind; asked from Dify when it is not set."""
    input_variable: Text | None = None
    """Workflow and completion apps: the input that takes the user's text."""
    output_variable: Text | None = None
    """Workflow apps: the output that is the answer."""
    system_prompt: SystemPrompt = "auto"
    """Where system messages go: ``auto``, ``query``, ``drop`` or ``input:<variable>``."""
    progress: Progress = "off"
    """``reasoning`` shows agent steps and node titles as reasoning."""
    inputs: Inputs = {}
    """Values for the app's inputs that a request leaves out."""
    conversations: AppConversations | None = None
    """``CONVERSATIONS`` for this app."""


class ImageModelSettings(BaseModel):
    """One model of Replicate under a name of the operator's choice."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=False
    )

    name: Text
    """The OpenAI model name: the key in ``[images.models.<name>]``."""
    model: ImageModelName
    """The model of Replicate: ``owner/name``, ``owner/name:version``, a version, or ``deployment:owner/name``."""
    inputs: Inputs = {}
    """Inputs of the model that a request leaves out."""
    upscaler: ImageModelName | None = None
    """The model that enlarges this one's pictures; ``IMAGE_UPSCALER`` when there is none."""
    mask_repaints: MaskColour | None = None
    """The colour of a mask where the model repaints; looked up in a built-in table when it is not set."""


class Settings(BaseModel):
    """All settings, validated. The constructor reads no source; ``load_settings`` does."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=False
    )

    host: Text = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8223, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1)
    """Processes that serve."""
    dify_api_url: DifyUrl | None = None
    """The base URL of Dify's API, with or without ``/v1``."""
    dify_api_key: Key | None = None
    """The key of the app that answers when a request brings no key and its model names no app."""
    api_keys: Keys = ()
    """Keys that clients must show, comma separated."""
    personal_keys: PersonalKeys = ()
    """Keys of single end users, ``key=end user``, comma separated."""
    allow_anonymous: Flag = False
    """Serve everyone who can connect, although no client keys are set."""
    passthrough_keys: Flag = True
    """Let requests bring a Dify key of their own."""
    cors_origins: Origins = ()
    """Web origins whose pages may call the proxy, comma separated; ``*`` for all."""
    log_level: LogLevel = "info"
    """The lowest level that is logged: ``debug``, ``info``, ``warning``, ``error`` or ``critical``."""
    log_format: LogFormat = "console"
    """``console`` for people, ``json`` for machines."""
    max_body_bytes: Bytes = 64 * 1024 * 1024
    """The largest request body."""
    connect_timeout: Seconds = 10
    """Time limit of a connection attempt to Dify."""
    silence_timeout: Seconds = 300
    """Time limit of Dify's first data."""
    turn_timeout: Seconds = 1260
    """Time limit of a whole turn."""
    first_event_grace: SecondsOrNone = 2
    """How long the status line waits for a first event, so that early failures keep their status."""
    heartbeat_interval: Seconds = 15
    """How long a stream stays silent before a heartbeat."""
    heartbeat: Heartbeat = "chunk"
    """What a heartbeat is: an empty ``chunk``, an SSE ``comment``, or ``off``."""
    shutdown_grace: SecondsOrNone = 20
    """How long running turns may go on after SIGTERM."""
    input_variable: Text | None = None
    """``input_variable`` of the app of ``DIFY_API_KEY``, and of apps that a request's own key names."""
    output_variable: Text | None = None
    """``output_variable`` of the same apps."""
    default_app: Text | None = None
    """The app that serves model names that no app has."""
    conversations: AppConversations = "auto"
    """How earlier messages reach an app: ``auto``, ``transcript`` or ``last-message``."""
    transcript_template: Template = TEMPLATE
    """The wording of a question with earlier messages: ``{history}``, then ``{question}``."""
    end_user_id: EndUserId = "derived"
    """How end users are named in Dify: ``derived``, or ``plain`` as clients send them."""
    task_calls: TaskCalls = "app"
    """How side calls (titles, tags, …) are answered: by the ``app``, or ``off`` for a placeholder."""
    task_model: Text | None = None
    """The app that answers side calls instead of the chat's own app."""
    apps: dict[str, AppSettings] = {}
    """The configured apps by model name."""
    image_model: Text = "stability-ai/sdxl"
    """The image model for requests that name none, or one of OpenAI's."""
    replicate_api_token: Key | None = None
    """The token that image requests are billed to."""
    replicate_api_url: ApiUrl = "https://api.replicate.com/v1"
    """The base URL of Replicate's API."""
    replicate_output_hosts: Hosts = ()
    """Hosts or origins besides Replicate's that pictures may be fetched from, comma separated."""
    unsupported_parameters: UnsupportedParameters = "reject"
    """The treatment of a header or input that the model does not take: ``reject``, ``warn`` or ``drop``."""
    allow_unsafe_images: Flag = True
    """Let requests switch a model's safety checker off."""
    enhance_prompt_app: Text | None = None
    """The app that rewrites prompts for models that cannot."""
    image_upscaler: ImageModelName | None = None
    """The model that enlarges pictures of models that cannot."""
    image_timeout: Seconds = 300
    """Time limit of a whole image request."""
    image_concurrency: int = Field(default=4, ge=1)
    """Predictions that one request may run at once."""
    max_picture_bytes: Bytes = 32 * 1024 * 1024
    """The largest picture that is fetched and stored."""
    image_storage_dir: Text = "~/.local/share/openai-dify-proxy/pictures"
    """The directory of stored pictures; ``~`` is the user's home."""
    store_prompts: Flag = False
    """Store the prompt in a picture's record."""
    public_url: WebUrl | None = None
    """The address that clients reach the proxy under, for links to pictures."""
    picture_retention: Seconds | None = None
    """How long pictures are stored; for ever when it is not set."""
    picture_store: StoreUrl | None = None
    """An object store for pictures instead of the directory: ``s3://bucket/prefix``, ``gs://…`` or ``az://…``."""
    picture_links: PictureLinks = "local"
    """The links in answers: ``local`` ones, or ``ipfs`` for the gateway's where a picture is on IPFS."""
    ipfs_upload_url: UploadUrl | None = None
    """The URL that every picture is uploaded to: Kubo's RPC, or a service's."""
    ipfs_upload_auth: Secret | None = None
    """The ``Authorization`` header of uploads, word for word."""
    ipfs_upload_field: Text = "file"
    """The form field that holds the picture."""
    ipfs_upload_form: Form = {}
    """Further form fields: ``name=value``, comma separated."""
    ipfs_gateway_url: GatewayUrl | None = None
    """The URL of a picture on an IPFS gateway; ``{cid}`` stands for the CID."""
    ipfs_timeout: Seconds = 60
    """Time limit of one upload."""
    state_url: StateUrl = SecretStr("sqlite:///~/.local/share/openai-dify-proxy/state.db")
    """The store of conversations and responses: ``sqlite:///path``, ``redis://…``, ``valkey://…`` or ``memory://``."""
    state_max_entries: int = Field(default=200_000, ge=1)
    """The largest number of entries in the state; the oldest are removed first."""
    conversation_ttl: Seconds = 30 * 86_400
    """How long a conversation can be continued after its last turn."""
    image_models: dict[str, ImageModelSettings] = {}
    """The configured image models by model name."""
    warnings: tuple[str, ...] = ()
    """Probable mistakes in the sources; found by ``load_settings``, not a setting."""

    @property
    def client_keys(self) -> tuple[tuple[SecretStr, str | None], ...]:
        """All client keys, each with the end user that it is pinned to."""
        return (*((key, None) for key in self.api_keys), *self.personal_keys)
