"""Which tokenizer a model gets, and what is said where its two do not agree."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from fakes.small_tokenizer import EOS, MERGES, build
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as NativeTokenizer

from tgi_llama.errors import ConfigError
from tgi_llama.generation import TokenId
from tgi_llama.text.hub_tokenizer import HubTokenizer
from tgi_llama.text.spellings import Spellings
from tgi_llama.text.tokenizer import EncodedToken, Tokenizer
from tgi_llama.text.tokenizer_choice import GgufRules, first_difference, load_tokenizer

BOS_ID = TokenId(build().token_to_id("<s>"))
EOS_ID = TokenId(build().token_to_id(EOS))
WAYS_OUT = ". --tokenizer gguf does without the first, --tokenizer json trusts it"
FIRST_PROBE = "Hello, world! It's a well-known fact: (1 + 2) * 3 == 9."


@attrs.frozen
class FakeVocabulary:
    """A GGUF's vocabulary made from another tokenizer."""

    tokenizer: HubTokenizer
    eos_text: str | None = EOS
    eot_text: str | None = None
    n_vocab: int = 1000
    bos_id: TokenId | None = BOS_ID
    eos_id: TokenId | None = EOS_ID

    @property
    def spellings(self) -> Spellings:
        return self.tokenizer.spellings

    def spelling(self, token: TokenId) -> str:
        return self.tokenizer.spelling(token) or ""

    def encode(self, text: str, *, add_special: bool, literals: object = ()) -> list[TokenId]:
        assert not literals
        return self.tokenizer.encode(text, add_special=add_special)

    def encode_with_offsets(
        self, text: str, *, add_special: bool, literals: object = ()
    ) -> list[EncodedToken]:
        assert not literals
        return self.tokenizer.encode_with_offsets(text, add_special=add_special)


def write(folder: Path, tokenizer: NativeTokenizer, **config: object) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def vocabulary_of(tokenizer: NativeTokenizer, **changes: object) -> FakeVocabulary:
    return attrs.evolve(FakeVocabulary(HubTokenizer(tokenizer)), **changes)


def rules(
    *, add_bos: bool | None = True, add_eos: bool | None = False, words_are_guessed: bool = False
) -> GgufRules:
    return GgufRules(
        path=Path("model.gguf"),
        add_bos=add_bos,
        add_eos=add_eos,
        words_are_guessed=words_are_guessed,
    )


def load(
    folder: Path | None,
    vocabulary: FakeVocabulary,
    said: GgufRules = rules(),  # noqa: B008  # a frozen value
    choice: str = "auto",
) -> Tokenizer:
    return load_tokenizer(folder, vocabulary, said, choice=choice)


def refusal(folder: Path, vocabulary: FakeVocabulary, said: GgufRules = rules()) -> str:  # noqa: B008
    with pytest.raises(ConfigError) as caught:
        load(folder, vocabulary, said)
    message = str(caught.value)
    start = f"{folder / 'tokenizer.json'} and model.gguf do not belong together: "
    assert message.startswith(start)
    assert message.endswith(WAYS_OUT)
    return message.removeprefix(start).removesuffix(WAYS_OUT)


# Which one


def test_without_a_tokenizer_json_it_is_the_vocabulary(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(build())
    assert load(None, vocabulary) is vocabulary
    assert load(tmp_path, vocabulary) is vocabulary
    for folder in (None, tmp_path):
        with pytest.raises(ConfigError, match=r"^--tokenizer: there is no tokenizer\.json"):
            load(folder, vocabulary, choice="json")


def test_with_one_that_agrees_it_is_that_with_the_models_size(tmp_path: Path) -> None:
    write(tmp_path, build())
    tokenizer = load(tmp_path, vocabulary_of(build()))
    assert isinstance(tokenizer, HubTokenizer)
    assert tokenizer.n_vocab == 1000


def test_gguf_is_chosen_without_a_look_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    vocabulary = vocabulary_of(build())
    assert load(tmp_path, vocabulary, choice="gguf") is vocabulary
    with pytest.raises(ConfigError, match="not a tokenizer"):
        load(tmp_path, vocabulary)


def test_controls_of_the_model_are_controls_of_the_file(tmp_path: Path) -> None:
    native = build()
    native.add_tokens(["<turn>"])
    write(tmp_path, native)
    in_model = build()
    in_model.add_special_tokens(["<turn>"])
    assert "<turn>" in load(tmp_path, vocabulary_of(in_model)).spellings.texts


# Other ids


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (build(alphabet_reversed=True), "token 1 of {!r} is 11 (',') in the first, 244 (',') in"),
        (build(merges=MERGES[:-1]), "token 0 of {!r} is 259 ('Hello') in the first, 258 ('Hell')"),
    ],
    ids=["other bytes", "other merges"],
)
def test_other_ids_are_refused_naming_the_first_difference(
    tmp_path: Path, other: NativeTokenizer, difference: str
) -> None:
    write(tmp_path, build())
    message = refusal(tmp_path, vocabulary_of(other))
    assert message.startswith(difference.format(FIRST_PROBE))
    assert message.endswith("the second")


def test_other_ids_are_trusted_where_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, build())
    vocabulary = vocabulary_of(build(merges=MERGES[:-1]))
    tokenizer = load(tmp_path, vocabulary, choice="json")
    assert len(tokenizer.encode("Hello", add_special=False)) == 1
    assert "do not belong together" in caplog.text


def test_other_words_are_trusted_where_the_gguf_does_not_know_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files made before llama.cpp named the rules: its guess is wrong, the tokens are right."""
    write(tmp_path, build())
    guessed = rules(words_are_guessed=True)
    same_tokens = vocabulary_of(build(merges=MERGES[:-1]))
    assert isinstance(load(tmp_path, same_tokens, guessed), HubTokenizer)
    assert "does not say how to cut a text into words" in caplog.text
    other_tokens = vocabulary_of(build(alphabet_reversed=True))
    assert refusal(tmp_path, other_tokens, guessed).startswith("token 1 of")


def test_same_tokens_with_other_rules_for_hard_texts_are_accepted_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """llama.cpp only nearly has the rules of many models: the file is right."""
    native = build()
    native.normalizer = normalizers.Strip(left=True, right=False)
    write(tmp_path, native)
    tokenizer = load(tmp_path, vocabulary_of(build()))
    assert isinstance(tokenizer, HubTokenizer)
    assert len(tokenizer.encode(" a", add_special=False)) == 1
    assert "have the same tokens, but cut some texts into others" in caplog.text
    assert "' leading, trailing '" in caplog.text


def test_other_tokens_are_refused_whatever_text_shows_it(tmp_path: Path) -> None:
    def tokenizer(last: str) -> NativeTokenizer:
        words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), last]
        ids = {word: index for index, word in enumerate(words)}
        native = NativeTokenizer(models.BPE(vocab=ids, merges=[(last[0], last[1])]))
        native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        native.add_special_tokens(["<s>", EOS])
        return native

    write(tmp_path, tokenizer("ÃĦ"))  # the bytes of an umlaut
    message = refusal(tmp_path, vocabulary_of(tokenizer("Ġe"), bos_id=None, eos_id=None))
    assert "'ÃĦ'" in message or "'Ġe'" in message


def test_added_tokens_and_gaps_are_no_other_tokens(tmp_path: Path) -> None:
    """The converter fills gaps, and writes some added tokens anew."""

    def tokenizer(words: Mapping[str, int]) -> NativeTokenizer:
        bytes_ = {
            one: index for index, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
        }
        native = NativeTokenizer(models.BPE(vocab={**bytes_, **words}, merges=[]))
        native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        native.add_special_tokens(["<s>", EOS])
        return native

    native = tokenizer({"▁▁": 256, "<s>": 258, EOS: 259})
    native.normalizer = normalizers.Strip(left=True, right=False)
    native.add_tokens(["▁▁"])
    write(tmp_path, native)
    models_own = tokenizer({"  ": 256, "[PAD257]": 257, "<s>": 258, EOS: 259})
    assert isinstance(load(tmp_path, vocabulary_of(models_own)), HubTokenizer)


def test_more_tokens_than_the_models_are_refused(tmp_path: Path) -> None:
    write(tmp_path, build())
    message = refusal(tmp_path, vocabulary_of(build(), n_vocab=100))
    assert message == "the first has 260 tokens, the second 100"


def test_added_tokens_beyond_the_model_are_accepted(tmp_path: Path) -> None:
    native = build()
    n_vocab = native.get_vocab_size()
    native.add_special_tokens(["<image>"])
    write(tmp_path, native)
    tokenizer = load(tmp_path, vocabulary_of(build(), n_vocab=n_vocab))
    assert tokenizer.n_vocab == n_vocab


def test_padding_of_the_model_beyond_the_file_is_accepted(tmp_path: Path) -> None:
    write(tmp_path, build())
    assert load(tmp_path, vocabulary_of(build(), n_vocab=4096)).n_vocab == 4096


def test_file_that_cannot_write_the_probes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, NativeTokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    assert refusal(tmp_path, vocabulary_of(build())).startswith('the first cannot encode "Hello')


def test_file_of_the_same_tokens_that_cannot_write_the_probes_is_refused(tmp_path: Path) -> None:
    words = NativeTokenizer(models.WordLevel({"a": 0}, unk_token="?"))
    write(tmp_path, words)
    a_only = build()
    a_only.normalizer = normalizers.Replace(Regex(".*"), "a")

    @attrs.frozen
    class Vocabulary(FakeVocabulary):
        def spelling(self, token: TokenId) -> str:  # noqa: ARG002
            return "a"

    vocabulary = Vocabulary(HubTokenizer(a_only), eos_text=None)
    assert refusal(tmp_path, vocabulary).startswith('the first cannot encode "Hello')


def test_end_tokens_must_have_the_same_ids() -> None:
    with_turn = build()
    with_turn.add_special_tokens(["<turn>"])
    vocabulary = vocabulary_of(with_turn, eot_text="<turn>")
    assert first_difference(HubTokenizer(build()), vocabulary) == (
        "'<turn>' is token None in the first, 262 in the second"
    )
    assert first_difference(HubTokenizer(with_turn), vocabulary) is None


def test_end_token_that_the_file_does_not_read_is_accepted() -> None:
    """llama.cpp takes some tokens for the end of a turn by their spelling."""
    vocabulary = vocabulary_of(build(), eot_text="Hello")
    assert first_difference(HubTokenizer(build()), vocabulary) is None


def test_end_token_that_comes_out_in_pieces_is_no_difference() -> None:
    """The GGUF names a token as the end that is not one of its controls."""
    vocabulary = vocabulary_of(build(), eos_text="</s>")
    assert first_difference(HubTokenizer(build()), vocabulary) is None


# What is put around a text


def with_end(native: NativeTokenizer) -> NativeTokenizer:
    native.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, int(EOS_ID))]
    )
    return native


def around(tokenizer: Tokenizer) -> tuple[bool, bool]:
    ids = tokenizer.encode("Hello", add_special=True)
    return ids[0] == BOS_ID, ids[-1] == EOS_ID


def test_contradiction_is_refused_in_words(tmp_path: Path) -> None:
    write(tmp_path, build())
    assert refusal(tmp_path, vocabulary_of(build(bos=False)), rules(add_bos=False)) == (
        "the first puts <s> before a text, the second nothing"
        " (tokenizer.ggml.add_bos_token is false)"
    )
    ends = vocabulary_of(with_end(build(bos=False)))
    write(tmp_path, build(bos=False))
    assert refusal(tmp_path, ends, rules(add_eos=True)) == (
        f"the first puts nothing behind a text, the second {EOS}"
        " (tokenizer.ggml.add_eos_token is true)"
    )


def test_tokens_that_a_gguf_has_no_word_for_are_put_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A post-processor may put two before a text; a GGUF knows one BOS."""
    native = build(bos=False)
    native.add_special_tokens(["[gMASK]", "<sop>"])
    ids = {text: native.token_to_id(text) for text in ("[gMASK]", "<sop>")}
    bare = NativeTokenizer.from_str(native.to_str())
    native.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=list(ids.items())
    )
    write(tmp_path, native)
    tokenizer = load(tmp_path, vocabulary_of(bare), rules(add_bos=False))
    assert tokenizer.encode("Hello", add_special=True)[:2] == list(ids.values())
    assert "does not say what stands before a text" in caplog.text


def test_contradiction_goes_to_the_file_where_asked_for(tmp_path: Path) -> None:
    write(tmp_path, build())
    vocabulary = vocabulary_of(build(bos=False))
    assert around(load(tmp_path, vocabulary, choice="json")) == (True, False)


@pytest.mark.parametrize("bos", [False, True])
def test_configuration_beside_the_file_goes_before_it(tmp_path: Path, *, bos: bool) -> None:
    """transformers and the converter obey ``add_bos_token``, whatever tokenizer.json has."""
    write(tmp_path, build(bos=not bos), add_bos_token=bos, add_eos_token=None)
    tokenizer = load(tmp_path, vocabulary_of(build(bos=bos)), rules(add_bos=bos))
    assert around(tokenizer) == (bos, False)


def test_configuration_that_adds_an_end_goes_before_the_file(tmp_path: Path) -> None:
    write(tmp_path, build(bos=False), add_eos_token=True)
    tokenizer = load(tmp_path, vocabulary_of(with_end(build())), rules(add_eos=True))
    assert around(tokenizer) == (False, True)


def test_file_that_agrees_with_the_model_goes_before_its_configuration(tmp_path: Path) -> None:
    write(tmp_path, build(), add_bos_token=False)
    assert around(load(tmp_path, vocabulary_of(build()))) == (True, False)


def test_other_configuration_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, build())
    other = tmp_path / "other.json"
    other.write_text('{"add_bos_token": false}')
    vocabulary = vocabulary_of(build(bos=False))
    tokenizer = load_tokenizer(tmp_path, vocabulary, rules(add_bos=False), config_path=other)
    assert around(tokenizer) == (False, False)


@pytest.mark.parametrize("content", ["", "[]", '{"add_bos_token": "yes"}', None])
def test_configuration_that_says_nothing_changes_nothing(
    tmp_path: Path, content: str | None
) -> None:
    write(tmp_path, build())
    config = tmp_path / "tokenizer_config.json"
    config.unlink()
    if content is not None:
        config.write_text(content)
    assert around(load(tmp_path, vocabulary_of(build()))) == (True, False)


def test_rule_that_the_gguf_leaves_out_is_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, build(bos=False))
    tokenizer = load(tmp_path, vocabulary_of(build()), rules(add_bos=None))
    assert around(tokenizer) == (False, False)
    (record,) = (one for one in caplog.records if one.levelno == logging.WARNING)
    assert "does not say what stands before a text" in record.getMessage()
    assert record.getMessage().endswith("says: nothing")
