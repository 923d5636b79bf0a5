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
        watermark=parameters.watermark,
        seed=parameters.seed,
    )


def n_branches(parameters: GenerateParameters) -> int:
    """How many generations are asked for; 0 means one, as in TGI."""
    return parameters.best_of or 1


def check_before_permit(parameters: GenerateParameters, limits: Limits, *, streaming: bool) -> None:
    """Rules a to d."""
    field = "parameters.best_of"
    if streaming and parameters.best_of not in (None, 1):
        reject("`best_of` != 1 is not supported when streaming tokens", field=field)
    if streaming and parameters.decoder_input_details:
        reject(
            "`decoder_input_details` == true is not supported when streaming tokens",
            field="parameters.decoder_input_details",
        )
    if n_branches(parameters) > 1 and limits.max_best_of == 1:
        reject("`best_of` != 1 is not allowed for this endpoint", field=field)
    if n_branches(parameters) > limits.max_best_of:
        reject(
            f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {parameters.best_of}",
            field=field,
        )


def check_parameters(
    parameters: GenerateParameters, sampling: RequestedSampling, limits: Limits
) -> None:
    """Rules 1 to 11, in TGI's order."""
    is_best_of = n_branches(parameters) > 1
    if is_best_of and not (parameters.do_sample or sampling.narrows):
        reject("you must use sampling when `best_of` is > 1", field="parameters.best_of")
    check_sampling(sampling, path="parameters.", neutral_filters=False)
    check_max_new_tokens(parameters.max_new_tokens, field="parameters.max_new_tokens")
    check_stop(parameters.stop, limits, field="parameters.stop")
    if is_best_of and parameters.seed is not None:
        reject("`seed` must not be set when `best_of` > 1", field="parameters.seed")
    n_top = parameters.top_n_tokens or 0
    if n_top > limits.max_top_n_tokens:
        reject(
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {n_top}",
            field="parameters.top_n_tokens",
        )
