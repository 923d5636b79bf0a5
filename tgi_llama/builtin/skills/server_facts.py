"""Questions about tgi_llama, its routes and options. Phrasings are held out, one by one."""

import random

import attrs

from ..examples import Example
from ..phrasing import ask, expand_all
from .server_options import OPTIONS, ROUTES, Option, Route

SKILL = "server_facts"


@attrs.frozen
class Fact:
    """An answer and all the ways to ask for it."""

    answer: str
    questions: tuple[str, ...]


def _fact(answer: str, *patterns: str) -> Fact:
    return Fact(answer, expand_all(*patterns))


_TELL = "[Tell me|Can you tell me|Do you know]"

GENERAL = (
    _fact(
        "tgi_llama is a text generation server for GGUF models, built on llama.cpp.",
        "[What is|What's|What exactly is|Explain|Describe] tgi_llama?",
        "[Tell me|Say] what tgi_llama is.",
        "[What does|What can] tgi_llama do?",
        "What is [this server|this program|this software|this]?",
    ),
    _fact(
        "I am the built-in demonstration model of tgi_llama.",
        "Who are you?", "What are you?", "[What is|What's] your name?", "Introduce yourself.",
        "[Which|What] model [are you|is this|am I talking to|is running|do you use]?",
        "Are you [ChatGPT|GPT-4|a large model|a human|a person|a robot]?",
        "What is the [built-in|demo] model?",
    ),
    _fact(
        "I can answer questions about this server, add small numbers, extract JSON, call tools, "
        "continue lists and hold a short chat.",
        "What can you do?", "[What are|Tell me] your [skills|abilities]?", "How can you help me?",
        "What [are you good at|do you know]?", "Can you help me?", "Help!",
        "What can I ask you?",
    ),
    _fact(
        "A GGUF is a file that holds a model for llama.cpp: its weights, tokenizer and settings.",
        "[What is|What's|Explain|Define] [a GGUF|GGUF|a GGUF file|the GGUF format]?",
        "What [does a GGUF file contain|is in a GGUF file|is GGUF used for]?",
    ),
    _fact(
        "llama.cpp is a library that runs language models on CPUs and GPUs.",
        "[What is|What's|Explain|Define] llama.cpp?", "What does llama.cpp do?",
        "Tell me what llama.cpp is.",
    ),
    _fact(
        "TGI is the Text Generation Inference server of Hugging Face. tgi_llama speaks its API.",
        "[What is|What's|Explain] [TGI|text-generation-inference|Text Generation Inference]?",
        "What does TGI [mean|stand for]?",
    ),
    _fact(
        "tgi_llama is under the Apache 2.0 licence.",
        "[What is|Which is|What's] the [licence|license] of [tgi_llama|this server|this model]?",
        "[Which|What] [licence|license] does [tgi_llama|it] have?",
        "Under which [licence|license] is [tgi_llama|this]?",
        "Is tgi_llama [open source|free software|free]?",
    ),
    _fact(
        "tgi_llama is written in Python.",
        "[Which|What] [programming language|language] is [tgi_llama|it|this server] written in?",
        "Is tgi_llama written in [Python|Rust|C++]?",
    ),
    _fact(
        "Start it with: python -m tgi_llama",
        "How do I [start|run|launch] [tgi_llama|the server|this server]?",
        "[Which|What] command starts [tgi_llama|the server]?",
        "How can I [start|run] [it|tgi_llama]?",
    ),
    _fact(
        "Install it from its folder with: pip install .",
        "How do I [install|get] [tgi_llama|the server|it]?", "How can I install [tgi_llama|it]?",
        "[Which|What] command installs [tgi_llama|the server]?",
    ),
    _fact(
        "Start it with --model-gguf and the path of your file.",
        "How do I [load|use|serve|run] [my own model|another model|a GGUF file|my GGUF]?",
        "Can I [load|use|serve] [my own model|another model|a bigger model]?",
    ),
    _fact(
        "Send SIGTERM or press Ctrl+C. Running requests are finished first.",
        "How do I [stop|shut down|end|quit] [tgi_llama|the server|this server|it]?",
        "How can I stop [it|the server]?",
    ),
    _fact(
        "The server answers 429 when it is overloaded. Try again later.",
        "What does [the status 429|status 429|error 429|a 429|429] mean?",
        "What happens when the server is [overloaded|too busy|full]?",
        "Why do I get [a 429|error 429]?",
    ),
    _fact(
        "The status 422 means that something in the request is wrong.",
        "What does [the status 422|status 422|error 422|a 422|422] mean?",
        "Why do I get [a 422|error 422]?", "What happens when a request is [wrong|invalid]?",
    ),
    _fact(
        "The status 424 means that the request failed during generation.",
        "What does [the status 424|status 424|error 424|a 424|424] mean?",
        "Why do I get [a 424|error 424]?",
    ),
    _fact(
        "The status 503 means that the server is not healthy.",
        "What does [the status 503|status 503|error 503|a 503|503] mean?",
        "Why do I get [a 503|error 503]?",
    ),
    _fact(
        "The status 401 means that the API key is missing or wrong.",
        "What does [the status 401|status 401|error 401|a 401|401] mean?",
        "Why do I get [a 401|error 401]?", "What happens without [an API key|the key]?",
    ),
    _fact(
        "A token is a small piece of text, such as a word, a part of a word or a digit.",
        "[What is|What's|Explain|Define] a token?", "What are tokens?",
    ),
    _fact(
        "Streaming means that tokens are sent one by one as soon as they are made.",
        "[What is|What's|Explain|Define] streaming?", "What does streaming mean?",
        "How does streaming work?",
    ),
    _fact(
        "Quantization stores the weights with fewer bits, so that a model is smaller and faster.",
        "[What is|What's|Explain|Define] quantization?", "What does quantization [mean|do]?",
        "What is a quantized model?",
    ),
    _fact(
        "The temperature makes the output more random when it is high and more regular when low.",
        "[What is|What's|Explain] the temperature?",
        "What does the [temperature|parameter temperature] do?",
        "What does temperature mean?",
    ),
    _fact(
        "Greedy decoding always takes the most likely token.",
        "[What is|What's|Explain|Define] greedy decoding?", "What does greedy [mean|decoding do]?",
    ),
    _fact(
        "The parameter max_new_tokens limits how many tokens are generated.",
        "[What is|What's|Explain] max_new_tokens?",
        "What does [max_new_tokens|the parameter max_new_tokens] do?",
        "How do I [limit|shorten] the output?",
    ),
    _fact(
        "The same seed gives the same sampled tokens again.",
        "[What is|What's|Explain] [the seed|a seed|seed]?",
        "What does the [seed|parameter seed] do?",
    ),
    _fact(
        "A stop string ends the generation as soon as it appears.",
        "[What is|What's|Explain] a [stop string|stop sequence]?",
        "What does the parameter stop do?",
        "What do stop [strings|sequences] do?",
    ),
    _fact(
        "A chat template turns the messages of a chat into one prompt.",
        "[What is|What's|Explain|Define] [a chat template|the chat template]?",
        "What does [a|the] chat template do?",
    ),
    _fact(
        "The context is the text a model can see at a time, counted in tokens.",
        "[What is|What's|Explain|Define] [the context|a context|the context length]?",
        "What does context mean?",
    ),
    _fact(
        "I have about three million weights.",
        "How [big|large|small] are you?", "How many [weights|parameters] do you have?",
        "[What is|What's] your size?",
    ),
    _fact(
        "No. Nothing is ever sent anywhere.",
        "Does [tgi_llama|the server|it] [send|collect] [usage statistics|data|telemetry]?",
        "Do you [send|collect] my data?",
    ),
    _fact(
        "Yes, it works with the OpenAI client. Set the base URL to http://localhost:3000/v1",
        "[Can I|How do I] use [the OpenAI client|the openai package|the OpenAI SDK]?",
        "Does [it|tgi_llama|the server] [work with|support] [OpenAI clients|the OpenAI API]?",
    ),
    _fact(
        "No. It runs on a CPU, and a GPU makes it faster.",
        "Do I need a [GPU|graphics card]?",
        "Does [it|tgi_llama|the server] need a [GPU|graphics card]?",
    ),
    _fact(
        "Hello! How can I help you?",
        "[Hello|Hi|Hey|Good morning|Good evening|Good day|Hi there|Hello there][!|.|]",
        "[Hello|Hi], how are you?", "How are you?",
    ),
    _fact(
        "You are welcome!",
        "[Thanks|Thank you|Thank you very much|Many thanks|Thanks a lot][!|.|]",
        "[Great|Good|Nice], thank you!",
    ),
    _fact(
        "Goodbye! See you soon.",
        "[Bye|Goodbye|See you|See you later|Good night][!|.|]", "I have to go[.|!]", "Bye bye!",
    ),
)  # fmt: skip


def _about_route(route: Route) -> tuple[Fact, ...]:
    path = route.path
    return (
        _fact(
            f"The route {path} {route.does}.",
            f"What does [{path}|the route {path}|the endpoint {path}] do?",
            f"What is [{path}|the route {path}|the endpoint {path}] [for|good for|used for]?",
            f"[Explain|Describe] [{path}|the route {path}].",
            f"[What is|What's] {path}?",
            f"{_TELL} what {path} does[?|.]",
            f"When do I use {path}?",
            f"{path}?",
        ),
        _fact(
            f"{route.method} {path}",
            f"[Which|What] [route|endpoint|URL|path] {route.goal}?",
            f"[Name|Tell me|I need|Give me|Show me] the [route|endpoint|path] that {route.goal}.",
        ),
    )


def _about_option(option: Option) -> tuple[Fact, ...]:
    name = option.name
    return (
        _fact(
            f"The option {name} {option.does}.",
            f"What does [{name}|the option {name}|the flag {name}] do?",
            f"What is [{name}|the option {name}|the flag {name}] [for|good for|used for]?",
            f"[Explain|Describe] [{name}|the option {name}].",
            f"[What is|What's] {name}?",
            f"{_TELL} what {name} does[?|.]",
            f"{name}?",
        ),
        _fact(
            f"The default of {name} is {option.default}.",
            f"[What is|What's] the [default|default value] [of|for] [{name}|the option {name}]?",
            f"[Which|What] default does {name} have?",
            f"{_TELL} the default of {name}[?|.]",
            f"What happens without {name}?",
            f"Default of {name}?",
        ),
    )


FACTS = (
    *GENERAL,
    *(fact for route in ROUTES for fact in _about_route(route)),
    *(fact for option in OPTIONS for fact in _about_option(option)),
    _fact("The server listens on port 3000.",
          "[Which|What] port does [the server|it|tgi_llama] [listen on|use]?",
          "What is the port of the server?", "On [which|what] port does [it|the server] run?"),
    _fact("A prompt may have up to 1024 tokens by default.",
          "How long [can|may] [a prompt|my prompt|the input] be?",
          "How many tokens [can|may] a prompt have?"),
    _fact("Prompt and output may have 2048 tokens together by default.",
          "How many tokens [can|may] prompt and output have[ together|]?",
          "How long [can|may] prompt and output be[ together|]?"),
)  # fmt: skip


def server_fact(rng: random.Random) -> Example:
    """A question about the server; general facts, routes and options get equal shares."""
    fact = rng.choice(GENERAL if rng.random() < 0.35 else FACTS)
    question = rng.choice(fact.questions)
    return ask(rng, SKILL, question, reply=fact.answer, keys=(f"asked:{question}",))
