"""What reads and writes a loaded model's texts: tokenizer, chat templates, grammars."""

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from tgi_llama.config import Config
from tgi_llama.llama.model import Model
from tgi_llama.metrics import Metrics
from tgi_llama.model_thread import ModelThread
from tgi_llama.models.files import ModelFiles
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.ll_compiler import LlGrammarCompiler
from tgi_llama.structured.trial import Trial
from tgi_llama.text.chat_template import ChatTemplates
from tgi_llama.text.template_files import GgufTemplates, load_chat_template
from tgi_llama.text.tokenizer import Tokenizer
from tgi_llama.text.tokenizer_choice import GgufRules, load_tokenizer
from tgi_llama.turns.detection import turn_format
from tgi_llama.validation.constraints import Constraints

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class ModelText:
    """How the model's texts are made and read."""

    tokenizer: Tokenizer
    templates: ChatTemplates | None
    control_spellings: Mapping[str, int]


async def load_text(config: Config, files: ModelFiles, thread: ModelThread) -> ModelText:
    """On a worker thread: a large tokenizer.json takes a second."""

    def load() -> ModelText:
        vocab = thread.vocab
        tokenizer = load_tokenizer(
            files.tokenizer_folder,
            vocab,
            gguf_rules(files.gguf, thread.model),
            choice=config.tokenizer,
            config_path=config.tokenizer_config_path,
        )
        gguf = GgufTemplates(
            templates=thread.model.chat_templates(),
            bos_token=vocab.bos_text,
            eos_token=vocab.eos_text,
        )
        return ModelText(
            tokenizer=tokenizer,
            templates=load_templates(config, files, gguf),
            control_spellings=vocab.control_spellings(),
        )

    return await trio.to_thread.run_sync(load)


def gguf_rules(path: Path, model: Model) -> GgufRules:
    """What the file says of how texts are encoded."""
    flags = {"true": True, "false": False, None: None}
    bos, eos = (model.metadata(f"tokenizer.ggml.add_{end}_token") for end in ("bos", "eos"))
    is_bpe = model.metadata("tokenizer.ggml.model") == "gpt2"
    return GgufRules(
        path=path,
        add_bos=flags.get(bos),
        add_eos=flags.get(eos),
        words_are_guessed=is_bpe and model.metadata("tokenizer.ggml.pre") in (None, "default"),
    )


async def load_grammars(
    config: Config, thread: ModelThread, metrics: Metrics, resources: contextlib.ExitStack
) -> LlGrammarCompiler | None:
    """None where grammars are off or the vocabulary cannot be used for them."""
    future = thread.grammar_vocabulary
    if future is None:
        return None
    try:
        vocabulary = await trio.to_thread.run_sync(future.result)
    except ValueError as error:
        _log.warning("requests with a grammar will be refused: %s", error)
        return None
    limits = GrammarLimits(max_bytes=config.max_grammar_bytes)
    trial = resources.enter_context(Trial(limits))
    trial.warm_up()
    return LlGrammarCompiler(
        vocabulary,
        trial,
        relaxed=config.relax_json_schemas,
        cache_size=config.grammar_cache_size,
        observe=metrics.record_grammar,
    )


def make_constraints(
    config: Config, text: ModelText, grammars: LlGrammarCompiler | None
) -> Constraints:
    """Raises ConfigError for a tool format that there is not."""
    sources = () if text.templates is None else text.templates.sources
    turns = turn_format(sources, text.control_spellings, name=config.tool_format)
    _log.info("tool calls are written and read as %s", turns.name)
    return Constraints(
        compiler=grammars,
        turn_format=turns,
        control_spellings=text.control_spellings,
        splits_reasoning=config.reasoning_format != "none",
    )


def load_templates(config: Config, files: ModelFiles, gguf: GgufTemplates) -> ChatTemplates | None:
    return load_chat_template(
        files.tokenizer_folder,
        gguf,
        override=config.chat_template,
        tokenizer_config_path=config.tokenizer_config_path,
    )
