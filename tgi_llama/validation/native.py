"""The rules for the ``parameters`` of the native routes. Pure functions that raise ValidationError.

The letters and numbers are those of the wire contract, section 2.5; the first rule that fails wins.
"""

from tgi_llama.wire.generate_requests import GenerateParameters

from .rules import (
    Limits,
    RequestedSampling,
    check_max_new_tokens,
    check_sampling,
    check_stop,
    reject,
    reject_unsupported,
)


def native_sampling(parameters: GenerateParameters) -> RequestedSampling:
    """The sampling fields as the client sent them."""
    return RequestedSampling(
        temperature=parameters.temperature,
        top_k=parameters.top_k,
        top_p=parameters.top_p,
        typical_p=parameters.typical_p,
        repetition_penalty=parameters.repetition_penalty,
        frequency_penalty=parameters.frequency_penalty,
        seed=parameters.seed,
    )


def check_streaming(parameters: GenerateParameters, *, streaming: bool) -> None:
    """Rules a and b."""
    if not streaming:
        return
    if parameters.best_of not in (None, 1):
        reject("`best_of` != 1 is not supported when streaming tokens", field="parameters.best_of")
    if parameters.decoder_input_details:
        reject(
            "`decoder_input_details` == true is not supported when streaming tokens",
            field="parameters.decoder_input_details",
        )


def check_parameters(
    parameters: GenerateParameters, sampling: RequestedSampling, limits: Limits
) -> None:
    """Rules c to 11, in TGI's order."""
    several = parameters.best_of is not None and parameters.best_of > 1
    if several:
        _check_best_of(parameters, sampling, limits)
    check_sampling(sampling, path="parameters.", neutral_filters=False)
    check_max_new_tokens(parameters.max_new_tokens, field="parameters.max_new_tokens")
    check_stop(parameters.stop, limits, field="parameters.stop")
    if several and parameters.seed is not None:
        reject("`seed` must not be set when `best_of` > 1", field="parameters.seed")
    n_top = parameters.top_n_tokens or 0
    if n_top > limits.max_top_n_tokens:
        reject(
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {n_top}",
            field="parameters.top_n_tokens",
        )


def _check_best_of(
    parameters: GenerateParameters, sampling: RequestedSampling, limits: Limits
) -> None:
    """Rules c, d and 1, for ``best_of`` > 1."""
    field = "parameters.best_of"
    if limits.max_best_of == 1:
        reject("`best_of` != 1 is not allowed for this endpoint", field=field)
    if parameters.best_of is not None and parameters.best_of > limits.max_best_of:
        reject(
            f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {parameters.best_of}",
            field=field,
        )
    if not (parameters.do_sample or sampling.narrows):
        reject("you must use sampling when `best_of` is > 1", field=field)


def check_supported(parameters: GenerateParameters) -> None:
    """Refuses what is understood but not implemented."""
    asked_for = {
        "best_of": parameters.best_of is not None and parameters.best_of > 1,
        "watermark": parameters.watermark,
        "decoder_input_details": parameters.decoder_input_details,
        "grammar": parameters.grammar is not None,
        "adapter_id": parameters.adapter_id is not None,
    }
    for name, is_asked_for in asked_for.items():
        if is_asked_for:
            reject_unsupported(name, field=f"parameters.{name}")
