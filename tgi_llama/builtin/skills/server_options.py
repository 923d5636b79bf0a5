"""What the model knows of the server's routes and options, as tables."""

import attrs


@attrs.frozen
class Route:
    """A route: how it is called, and what it does as the end of `The route X ...`."""

    method: str
    path: str
    does: str
    goal: str  # fits `Which route ...?`


@attrs.frozen
class Option:
    """A command-line option: what it does as the end of `The option X ...`, and its default."""

    name: str
    does: str
    default: str


ROUTES = (
    Route("POST", "/generate", "returns one whole generated text as JSON", "returns a whole text"),
    Route(
        "POST",
        "/generate_stream",
        "streams the generated tokens as server-sent events",
        "streams tokens",
    ),
    Route(
        "POST",
        "/v1/chat/completions",
        "answers chats in the OpenAI format",
        "answers OpenAI chats",
    ),
    Route(
        "POST",
        "/v1/completions",
        "completes a prompt in the OpenAI format",
        "completes OpenAI prompts",
    ),
    Route("GET", "/v1/models", "lists the served model in the OpenAI format", "lists the models"),
    Route(
        "POST",
        "/tokenize",
        "turns a text into token ids with their offsets",
        "turns a text into tokens",
    ),
    Route(
        "POST",
        "/chat_tokenize",
        "renders the chat template and tokenizes the result",
        "tokenizes a chat",
    ),
    Route("GET", "/info", "shows the model and the limits of the server", "shows the limits"),
    Route("GET", "/health", "says whether the server is healthy", "checks the health"),
    Route("GET", "/ping", "is another name of /health", "is another name of /health"),
    Route("GET", "/metrics", "shows metrics in the Prometheus format", "shows Prometheus metrics"),
    Route("GET", "/docs", "shows the API documentation", "shows the documentation"),
    Route(
        "POST",
        "/invocations",
        "takes requests in the SageMaker format",
        "takes SageMaker requests",
    ),
    Route("POST", "/vertex", "takes requests in the Vertex AI format", "takes Vertex AI requests"),
)

OPTIONS = (
    Option("--port", "sets the port the server listens on", "3000"),
    Option("--hostname", "sets the address the server listens on", "0.0.0.0"),
    Option("--model-id", "names the model or its local folder", "the built-in model"),
    Option("--model-gguf", "gives the path of the GGUF file to load", "not set"),
    Option("--max-input-tokens", "limits the tokens of a prompt", "1024"),
    Option("--max-total-tokens", "limits the tokens of prompt and output together", "2048"),
    Option("--max-best-of", "limits the value of best_of", "2"),
    Option("--max-stop-sequences", "limits the stop strings of a request", "4"),
    Option("--max-top-n-tokens", "limits the value of top_n_tokens", "5"),
    Option("--max-client-batch-size", "limits the prompts of one completions call", "32"),
    Option("--validation-workers", "sets how many workers tokenize requests", "2"),
    Option("--max-concurrent-requests", "limits the requests served at a time", "128"),
    Option("--max-batch-size", "limits the sequences of one batch", "the number of threads"),
    Option("--n-threads", "sets the threads used for generation", "the number of CPUs"),
    Option("--n-gpu-layers", "sets how many layers go to the GPU", "0"),
    Option("--split-mode", "chooses how the model is split over GPUs", "layer"),
    Option("--numa", "chooses the NUMA strategy", "disabled"),
    Option("--type-k", "chooses the type of the key cache", "f16"),
    Option("--type-v", "chooses the type of the value cache", "f16"),
    Option("--payload-limit", "limits the size of a request body in bytes", "2000000"),
    Option("--prometheus-port", "sets a port of its own for the metrics", "not set"),
    Option("--api-key", "sets the key that clients must send", "not set"),
    Option("--cors-allow-origin", "names the origins that browsers may call from", "any"),
    Option("--json-output", "writes the log as JSON", "off"),
    Option("--use-mlock", "keeps the model in memory", "off"),
    Option("--tokenizer-config-path", "names another tokenizer_config.json", "not set"),
    Option("--disable-grammar-support", "turns grammars off", "off"),
    Option(
        "--max-physical-batch-total-tokens",
        "limits the tokens of one physical batch",
        "512",
    ),
    Option(
        "--graceful-termination-timeout",
        "sets how many seconds running requests get at shutdown",
        "90",
    ),
    Option("--usage-stats", "is accepted, but nothing is ever sent", "off"),
)
