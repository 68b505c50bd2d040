"""The demo's models, with the names and inputs of models on Replicate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from openai_dify_proxy_demo.replicate.schemas import Kind, OutputShape, Param, openapi

CREATED_AT = "2025-06-01T12:00:00.000000Z"

MaskColour = Literal["white", "black"]


@dataclass(frozen=True)
class DemoModel:
    """One model and its only version."""

    name: str
    """`owner/name`."""
    version: str
    description: str
    params: tuple[Param, ...]
    output: OutputShape
    official: bool = False
    """Whether the model runs by name; community models need their version."""
    repaints: MaskColour = "white"
    """The mask colour of the area that the model repaints."""
    embeds_prompt: bool = False
    """Whether its pictures contain the prompt in PNG text chunks, in ComfyUI's format."""
    cog_version: str = "0.16.8"

    def param(self, name: str) -> Param | None:
        return next((param for param in self.params if param.name == name), None)

    def version_body(self) -> dict[str, Any]:
        """Return the body of `GET /v1/models/{owner}/{name}/versions/{id}`."""
        return {
            "id": self.version,
            "created_at": CREATED_AT,
            "cog_version": self.cog_version,
            "openapi_schema": openapi(self.params, self.output),
        }

    def body(self) -> dict[str, Any]:
        """Return the body of `GET /v1/models/{owner}/{name}`."""
        owner, _, name = self.name.partition("/")
        return {
            "url": f"https://replicate.com/{self.name}",
            "owner": owner,
            "name": name,
            "description": self.description,
            "visibility": "public",
            "is_official": self.official,
            "run_count": 19361490,
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "cover_image_url": None,
            "default_example": None,
            "latest_version": self.version_body(),
        }


_FLUX_RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")
_PROMPT = Param("prompt", "string", "Text prompt for image generation", required=True)
_SEED = Param("seed", "integer", "Random seed. Set for reproducible generation", nullable=True)
_UNCHECKED = Param("disable_safety_checker", "boolean", "Disable safety checker for generated images.", default=False)
_UPSAMPLING = Param(
    "prompt_upsampling", "boolean", "Automatically modify the prompt for more creative generation", default=False
)


def _format(default: str, *choices: str) -> Param:
    return Param("output_format", "string", "Format of the output images", default=default, choices=choices)


def _quality() -> Param:
    return _number("output_quality", "integer", "Quality when saving the output images, from 0 to 100.", 80, (0, 100))


def _number(name: str, kind: Kind, description: str, default: float, limits: tuple[float, float]) -> Param:
    return Param(name, kind, description, default=default, minimum=limits[0], maximum=limits[1])


def _ratio(default: str, *choices: str) -> Param:
    return Param("aspect_ratio", "string", "Aspect ratio for the generated image", default=default, choices=choices)


SDXL = DemoModel(
    "stability-ai/sdxl",
    "7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc",
    "A text-to-image generative AI model that creates beautiful images",
    (
        Param("prompt", "string", "Input prompt", default="An astronaut riding a rainbow unicorn"),
        Param("negative_prompt", "string", "Input Negative Prompt", default=""),
        Param("image", "picture", "Input image for img2img or inpaint mode"),
        Param(
            "mask",
            "picture",
            "Input mask for inpaint mode. Black areas will be preserved, white areas will be inpainted.",
        ),
        Param("width", "integer", "Width of output image", default=1024),
        Param("height", "integer", "Height of output image", default=1024),
        _number("num_outputs", "integer", "Number of images to output.", 1, (1, 4)),
        Param(
            "scheduler",
            "string",
            "scheduler",
            default="K_EULER",
            choices=(
                "DDIM",
                "DPMSolverMultistep",
                "HeunDiscrete",
                "KarrasDPM",
                "K_EULER_ANCESTRAL",
                "K_EULER",
                "PNDM",
            ),
        ),
        _number("num_inference_steps", "integer", "Number of denoising steps", 50, (1, 500)),
        _number("guidance_scale", "number", "Scale for classifier-free guidance", 7.5, (1, 50)),
        _number(
            "prompt_strength",
            "number",
            "Prompt strength when using img2img / inpaint. 1.0 corresponds to full destruction of information in image",
            0.8,
            (0, 1),
        ),
        Param("seed", "integer", "Random seed. Leave blank to randomize the seed"),
        Param(
            "refine",
            "string",
            "Which refine style to use",
            default="no_refiner",
            choices=("no_refiner", "expert_ensemble_refiner", "base_image_refiner"),
        ),
        _number("high_noise_frac", "number", "For expert_ensemble_refiner, the fraction of noise to use", 0.8, (0, 1)),
        Param("refine_steps", "integer", "For base_image_refiner, the number of steps to refine"),
        Param("apply_watermark", "boolean", "Applies a watermark to the image", default=True),
        _number("lora_scale", "number", "LoRA additive scale. Only applicable on trained models.", 0.6, (0, 1)),
        Param("replicate_weights", "string", "Replicate LoRA weights to use."),
        _UNCHECKED,
    ),
    "list",
    embeds_prompt=True,
    cog_version="0.8.6",
)

_OLD_SIZES = (128, 256, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024)
_OLD_LIMIT = "Maximum size is 1024x768 or 768x1024 because of memory limits"

STABLE_DIFFUSION = DemoModel(
    "stability-ai/stable-diffusion",
    "27b93a2413e7f36cd83da926f3656280b2931564ff050bf9575f1fdf9bcd7478",
    "A latent text-to-image diffusion model capable of generating photo-realistic images given any text input",
    (
        Param("prompt", "string", "Input prompt", default=""),
        Param("negative_prompt", "string", "Specify things to not see in the output"),
        Param("width", "integer", f"Width of output image. {_OLD_LIMIT}", default=512, choices=_OLD_SIZES),
        Param("height", "integer", f"Height of output image. {_OLD_LIMIT}", default=512, choices=_OLD_SIZES),
        Param(
            "init_image",
            "picture",
            "Initial image to generate variations of. Will be resized to the specified width and height",
        ),
        Param(
            "mask",
            "picture",
            "Black and white image to use as mask for inpainting over init_image. "
            "Black pixels are inpainted and white pixels are preserved.",
        ),
        Param(
            "prompt_strength",
            "number",
            "Prompt strength when using init image. 1.0 corresponds to full destruction of information in init image",
            default=0.8,
        ),
        _number("num_outputs", "integer", "Number of images to output.", 1, (1, 10)),
        _number("num_inference_steps", "integer", "Number of denoising steps", 50, (1, 500)),
        _number("guidance_scale", "number", "Scale for classifier-free guidance", 7.5, (1, 20)),
        Param(
            "scheduler",
            "string",
            "Choose a scheduler.",
            default="DPMSolverMultistep",
            choices=("DDIM", "K_EULER", "DPMSolverMultistep", "K_EULER_ANCESTRAL", "PNDM", "KLMS"),
        ),
        Param("seed", "integer", "Random seed. Leave blank to randomize the seed"),
    ),
    "list",
    repaints="black",
    embeds_prompt=True,
    cog_version="0.4.4",
)

FLUX_SCHNELL = DemoModel(
    "black-forest-labs/flux-schnell",
    "c846a69991daf4c0e5d016514849d14ee5b2e6846ce6b9d6f21369e564cfe51e",
    "The fastest image generation model tailored for local development and personal use",
    (
        _PROMPT,
        _ratio("1:1", *_FLUX_RATIOS),
        _number("num_outputs", "integer", "Number of outputs to generate", 1, (1, 4)),
        _number(
            "num_inference_steps",
            "integer",
            "Number of denoising steps. 4 is recommended, and lower number of steps produce lower quality outputs, "
            "faster.",
            4,
            (1, 4),
        ),
        _SEED,
        _format("webp", "webp", "jpg", "png"),
        _quality(),
        _UNCHECKED,
        Param("go_fast", "boolean", "Run faster predictions with model optimized for speed", default=True),
        Param(
            "megapixels",
            "string",
            "Approximate number of megapixels for generated image",
            default="1",
            choices=("1", "0.25"),
        ),
    ),
    "list",
    official=True,
)

FLUX_DEV = DemoModel(
    "black-forest-labs/flux-dev",
    "6e4a938f85952bdabcc15aa329178c4d681c52bf25a0342403287dc26944661d",
    "A 12 billion parameter rectified flow transformer capable of generating images from text descriptions",
    (
        _PROMPT,
        _ratio("1:1", *_FLUX_RATIOS),
        Param(
            "image",
            "picture",
            "Input image for image to image mode. The aspect ratio of your output will match this image",
            nullable=True,
        ),
        _number(
            "prompt_strength",
            "number",
            "Prompt strength when using img2img. 1.0 corresponds to full destruction of information in image",
            0.8,
            (0, 1),
        ),
        _number("num_outputs", "integer", "Number of outputs to generate", 1, (1, 4)),
        _number("num_inference_steps", "integer", "Number of denoising steps.", 28, (1, 50)),
        _number("guidance", "number", "Guidance for generated image", 3, (0, 10)),
        _SEED,
        _format("webp", "webp", "jpg", "png"),
        _quality(),
        _UNCHECKED,
        Param("go_fast", "boolean", "Run faster predictions with model optimized for speed", default=True),
        Param(
            "megapixels",
            "string",
            "Approximate number of megapixels for generated image",
            default="1",
            choices=("1", "0.25"),
        ),
    ),
    "list",
    official=True,
)


def _custom_side(side: str) -> Param:
    return Param(
        side,
        "integer",
        f"{side.title()} of the generated image. Only used when aspect_ratio=custom. "
        "Must be a multiple of 32 (if it's not, it will be rounded to nearest multiple of 32).",
        minimum=256,
        maximum=1440,
        nullable=True,
    )


FLUX_PRO = DemoModel(
    "black-forest-labs/flux-pro",
    "ce4035b99fc7bac18bc2f0384632858f126f6b4d96c88603a898a76b8e0c4ac2",
    "State-of-the-art image generation with top of the line prompt following and visual quality",
    (
        _PROMPT,
        _ratio("1:1", "custom", "1:1", "16:9", "3:2", "2:3", "4:5", "5:4", "9:16", "3:4", "4:3"),
        _custom_side("width"),
        _custom_side("height"),
        _number("steps", "integer", "Number of diffusion steps", 25, (1, 50)),
        _number(
            "guidance",
            "number",
            "Controls the balance between adherence to the text prompt and image quality/diversity.",
            3,
            (2, 5),
        ),
        _number("interval", "number", "Increases the variance in possible outputs", 2, (1, 4)),
        _number(
            "safety_tolerance",
            "integer",
            "Safety tolerance, 1 is most strict and 6 is most permissive",
            2,
            (1, 6),
        ),
        _SEED,
        _UPSAMPLING,
        _format("webp", "webp", "jpg", "png"),
        _quality(),
    ),
    "string",
    official=True,
)

FLUX_KONTEXT_PRO = DemoModel(
    "black-forest-labs/flux-kontext-pro",
    "0a1381936934845a14efcc9f309ce7d031cb905867878b5c5830280e00e97606",
    "A state-of-the-art text-based image editing model",
    (
        Param(
            "prompt",
            "string",
            "Text description of what you want to generate, or the instruction on how to edit the given image.",
            required=True,
        ),
        Param(
            "input_image",
            "picture",
            "Image to use as reference. Must be jpeg, png, gif, or webp.",
            nullable=True,
        ),
        Param(
            "aspect_ratio",
            "string",
            "Aspect ratio of the generated image. "
            "Use 'match_input_image' to match the aspect ratio of the input image.",
            default="match_input_image",
            choices=(
                "match_input_image",
                *("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "4:5", "5:4", "21:9", "9:21", "2:1", "1:2"),
            ),
        ),
        Param("prompt_upsampling", "boolean", "Automatic prompt improvement", default=False),
        _SEED,
        _format("png", "jpg", "png"),
        _number(
            "safety_tolerance",
            "integer",
            "Safety tolerance, 0 is most strict and 6 is most permissive. "
            "2 is currently the maximum allowed when input images are used.",
            2,
            (0, 6),
        ),
    ),
    "string",
    official=True,
)

_RESOLUTIONS = (
    *("None", "512x1536", "576x1408", "576x1472", "576x1536", "640x1344", "640x1408", "640x1472", "640x1536"),
    *("704x1152", "704x1216", "704x1280", "704x1344", "704x1408", "704x1472", "736x1312", "768x1088", "768x1216"),
    *("768x1280", "768x1344", "800x1280", "832x960", "832x1024", "832x1088", "832x1152", "832x1216", "832x1248"),
    *("864x1152", "896x960", "896x1024", "896x1088", "896x1120", "896x1152", "960x832", "960x896", "960x1024"),
    *("960x1088", "1024x832", "1024x896", "1024x960", "1024x1024", "1088x768", "1088x832", "1088x896", "1088x960"),
    *("1120x896", "1152x704", "1152x832", "1152x864", "1152x896", "1216x704", "1216x768", "1216x832", "1248x832"),
    *("1280x704", "1280x768", "1280x800", "1312x736", "1344x640", "1344x704", "1344x768", "1408x576", "1408x640"),
    *("1408x704", "1472x576", "1472x640", "1472x704", "1536x512", "1536x576", "1536x640"),
)

IDEOGRAM = DemoModel(
    "ideogram-ai/ideogram-v3-turbo",
    "d9b3748f95c0fe3e71f010f8cc5d80e8f5252acd0e74b1c294ee889eea52a47b",
    "Turbo is the fastest and cheapest Ideogram v3",
    (
        _PROMPT,
        Param(
            "aspect_ratio",
            "string",
            "Aspect ratio. Ignored if a resolution or inpainting image is given.",
            default="1:1",
            choices=(
                *("1:3", "3:1", "1:2", "2:1", "9:16", "16:9", "10:16", "16:10"),
                *("2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "1:1"),
            ),
        ),
        Param(
            "resolution",
            "string",
            "Resolution. Overrides aspect ratio. Ignored if an inpainting image is given.",
            default="None",
            choices=_RESOLUTIONS,
        ),
        Param(
            "magic_prompt_option",
            "string",
            "Magic Prompt will interpret your prompt and optimize it to maximize variety and quality of the images "
            "generated.",
            default="Auto",
            choices=("Auto", "On", "Off"),
        ),
        Param(
            "image",
            "picture",
            "An image file to use for inpainting. You must also use a mask.",
            nullable=True,
        ),
        Param(
            "mask",
            "picture",
            "A black and white image. Black pixels are inpainted, white pixels are preserved. "
            "The mask will be resized to match the image size.",
            nullable=True,
        ),
        Param(
            "style_type",
            "string",
            "The styles help define the specific aesthetic of the image you want to generate.",
            default="None",
            choices=("None", "Auto", "General", "Realistic", "Design"),
        ),
        Param(
            "style_reference_images",
            "pictures",
            "A list of images to use as style references.",
            nullable=True,
        ),
        Param(
            "seed",
            "integer",
            "Random seed. Set for reproducible generation",
            maximum=2147483647,
            nullable=True,
        ),
    ),
    "string",
    official=True,
    repaints="black",
)

REALESRGAN = DemoModel(
    "xinntao/realesrgan",
    "1b976a4d456ed9e4d1a846597b7614e79eadad3032e9124fa63859db0fd59b56",
    "Practical Image Restoration Algorithms for General/Anime Images",
    (
        Param("img", "picture", "Input", required=True),
        Param("scale", "number", "Rescaling factor", default=2),
        Param(
            "version",
            "string",
            "RealESRGAN version. Please see [Readme] below for more descriptions",
            default="General - v3",
            choices=("General - RealESRGANplus", "General - v3", "Anime - anime6B", "AnimeVideo - v3"),
        ),
        Param("face_enhance", "boolean", "Face enhancement with GFPGAN.", default=False),
        Param("tile", "integer", "Tile size. Default is 0, that is no tile.", default=0),
    ),
    "string",
    cog_version="0.3.9",
)

REAL_ESRGAN = DemoModel(
    "nightmareai/real-esrgan",
    "f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa",
    "Real-ESRGAN with optional face correction and adjustable upscale",
    (
        Param("image", "picture", "Input image", required=True),
        _number("scale", "number", "Factor to scale image by", 4, (0, 10)),
        Param("face_enhance", "boolean", "Run GFPGAN face enhancement along with upscaling", default=False),
    ),
    "string",
    cog_version="0.10.0",
)

SEEDREAM = DemoModel(
    "bytedance/seedream-4.5",
    "9fe3b8282dcb9d9063b05e33210a1432801f7c5a6641db944baefcec4886761a",
    "Seedream 4.5: upgraded image model with stronger spatial understanding and world knowledge",
    (
        _PROMPT,
        Param(
            "image_input",
            "pictures",
            "Input image(s) for image-to-image generation. "
            "List of 1-14 images for single or multi-reference generation.",
            default=[],
        ),
        Param(
            "size",
            "string",
            "Image resolution: 2K (2048px), 4K (4096px), or 'custom' for specific dimensions.",
            default="2K",
            choices=("2K", "4K", "custom"),
        ),
        Param(
            "aspect_ratio",
            "string",
            "Image aspect ratio. Only used when size is not 'custom'. "
            "Use 'match_input_image' to automatically match the input image's aspect ratio.",
            default="match_input_image",
            choices=("match_input_image", "1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9"),
        ),
        _number("width", "integer", "Custom image width (only used when size='custom').", 2048, (1024, 4096)),
        _number("height", "integer", "Custom image height (only used when size='custom').", 2048, (1024, 4096)),
        Param(
            "sequential_image_generation",
            "string",
            "Group image generation mode. 'disabled' generates a single image. "
            "'auto' lets the model decide whether to generate multiple related images.",
            default="disabled",
            choices=("disabled", "auto"),
        ),
        _number(
            "max_images",
            "integer",
            "Maximum number of images to generate when sequential_image_generation='auto'.",
            1,
            (1, 15),
        ),
    ),
    "list",
    official=True,
)

IMAGEN = DemoModel(
    "google/imagen-4-ultra",
    "eb08b03f79ebc3d4b2542baacca07cc1e0729d24ed1730945555409f0ee30e1a",
    "Use this ultra version of Imagen 4 when quality matters more than speed and cost",
    (
        _PROMPT,
        _ratio("1:1", "1:1", "9:16", "16:9", "3:4", "4:3"),
        Param("image_size", "string", "Resolution of the generated image", default="1K", choices=("1K", "2K")),
        Param(
            "safety_filter_level",
            "string",
            "block_low_and_above is strictest, block_medium_and_above blocks some prompts, "
            "block_only_high is most permissive but some prompts will still be blocked",
            default="block_only_high",
            choices=("block_low_and_above", "block_medium_and_above", "block_only_high"),
        ),
        _format("jpg", "jpg", "png"),
    ),
    "string",
    official=True,
)

GPT_IMAGE = DemoModel(
    "openai/gpt-image-1",
    "a0fd2d5e5a7f1e5b1fbf9a0e8dd0d3ba1e2eb2b9f3d9ba2b1c9a6bd9c0de7a11",
    "A multimodal image generation model that creates high-quality images. You need to bring your own key.",
    (
        Param("openai_api_key", "string", "Your OpenAI API key", nullable=True),
        _PROMPT,
        _ratio("1:1", "1:1", "3:2", "2:3"),
        Param(
            "input_images",
            "pictures",
            "A list of images to use as input for the generation",
            nullable=True,
        ),
        _number("number_of_images", "integer", "Number of images to generate (1-10)", 1, (1, 10)),
        Param(
            "quality",
            "string",
            "The quality of the generated image",
            default="auto",
            choices=("low", "medium", "high", "auto"),
        ),
        Param(
            "background",
            "string",
            "Set whether the background is transparent or opaque or choose automatically",
            default="auto",
            choices=("auto", "transparent", "opaque"),
        ),
        _number("output_compression", "integer", "Compression level (0-100%)", 90, (0, 100)),
        _format("webp", "png", "jpeg", "webp"),
        Param("moderation", "string", "Content moderation level", default="auto", choices=("auto", "low")),
        Param(
            "user_id",
            "string",
            "An optional unique identifier representing your end-user.",
            nullable=True,
        ),
    ),
    "list",
    official=True,
)

DEMO_MODELS = (
    *(SDXL, STABLE_DIFFUSION, FLUX_SCHNELL, FLUX_DEV, FLUX_PRO, FLUX_KONTEXT_PRO, IDEOGRAM),
    *(REALESRGAN, REAL_ESRGAN, SEEDREAM, IMAGEN, GPT_IMAGE),
)

DEMO_DEPLOYMENTS = {"demo/schnell": FLUX_SCHNELL, "demo/sdxl": SDXL}
"""Deployments by `owner/name`."""


def find_model(name: str) -> DemoModel | None:
    return next((model for model in DEMO_MODELS if model.name == name), None)


def find_version(version: str) -> DemoModel | None:
    """Return the model of a `version`: `owner/name` (official models only), `owner/name:id` or `id`."""
    name, _, identifier = version.rpartition(":")
    for model in DEMO_MODELS:
        if model.version == identifier and name in ("", model.name):
            return model
        if model.official and version == model.name:
            return model
    return None
