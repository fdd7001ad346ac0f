"""Sentences that the floors below make in English, told in the reader's language."""

from __future__ import annotations

import functools
import re

from dpkit.words import english, marked, say

SENTENCES = marked((
    "Teaching run: whoever knows the seed can remove the noise. Otherwise: {rest}",
    "{promise} for {unit} ({relation}), by {sampler} over {length}; assumes exact real arithmetic "
    "(computers round) and that the number of examples is public.{more}",
    "{promise} for {unit} ({relation}), by {sampler} over {length}; assumes exact real arithmetic "
    "(computers round).{more}",
    "{terms} Stopped after {steps} steps: {claim}",
    "Stopped after {steps} steps: {claim}",
    "the claim stays at the whole budget.",
    "the claim stays at the planned price, since when to stop may have depended on the data; "
    "epsilon would be {epsilon} if this length had been fixed beforehand.",
    "No privacy is promised: epsilon is infinite",
    "({epsilon}, {delta})-differential privacy",
    "An estimate, not a bound: epsilon about {epsilon} at {delta}",
    "one example",
    "the input of one example, its label being public",
    "{steps} steps, as many as {budget} admits, accounted by {accountant}",
    "{steps} steps, accounted by {accountant}",
    "at most {steps} steps, by a filter that keeps {budget} whatever the noise reacts to",
    "a zCDP budget of ρ = {rho}",
    "a Renyi budget of {rdp} at order {order}",
    "moments accountant (2016)",
    "GDP (limit theorem: an estimate, not a bound)",
    "basic composition",
    "advanced composition",
    "Every record's noisy activation is released {often}: no batch amplifies that and training on "
    "it is free; the layers before it are public and frozen, or paid for.",
    "{often}, its label once by randomised response",
    "{count} times",
    "Poisson sampling at rate {rate}",
    "Poisson sampling at rates from {least} to {most}, fixed beforehand",
    "{sampler}, cut at {records} records (chance {chance} in the run, counted within delta)",
    "{batches} batches of freshly shuffled records an epoch",
    "one of {batches} batches an epoch for each record (balls in bins)",
    "batches of exactly {size} of {records} records",
    "a fixed partition into {shards} disjoint shards",
    "{count} batches do not divide {records} records: {some} of them hold {more_each} records, the "
    "others {each}; none is dropped, and every sum is divided by {mean}.",
    "{count} shards do not divide {records} records: {some} of them hold {more_each} records, the "
    "others {each}; none is dropped, and every sum is divided by {mean}.",
    "delta {delta} is not below 1/N = {share}: publishing one record outright would be allowed; "
    "choose a smaller delta.",
    "epsilon is infinite: nothing is promised; add noise.",
    "epsilon {epsilon} promises next to nothing: the odds of a conclusion about a record may "
    "change by a factor of e^{power}; add noise or take fewer steps.",
    "The claim is FALSE",
    "Nothing speaks against the claim",
    "epsilon is at least {lower} (confidence {confidence}, {observations} observations, {how}), "
    "claimed {claimed} at delta {delta}.",
    "each release guessed at half the clip norm",
    "the run's weighted sum guessed at its middle",
    "likelihood ratio of the whole transcript",
    "No privacy is promised: of {guesses} guesses whether a record was in the batch, {wrong} were "
    "wrong, at noise {noise} times the norm of an activation; every epsilon up to {refuted} is "
    "ruled out at delta {delta} (confidence {confidence}), and more guesses rule out more.",
    "Nothing was run yet.",
    "{tries}, shown or not, cost ε = {epsilon} at δ = {delta} together, by composition: this is "
    "what a look at all of them spends.",
    "{tries}, shown or not, cost ε = {epsilon} at δ = {delta} for a record that is in all of them, "
    "by composition: this is what a look at all of them spends.",
    "{tries}, shown or not, cost ε = {epsilon} at δ = {delta} together, of {unit}, by composition: "
    "this is what a look at all of them spends.",
    "{tries}, shown or not, cost ε = {epsilon} at δ = {delta} for a record that is in all of them, "
    "of {unit}, by composition: this is what a look at all of them spends.",
    "{tries}, shown or not, cost more than can be told together: {problem}",
    "{attempts} attempts at {runs} runs on {sets} data sets",
    "{attempts} attempts at {runs} runs",
    "sigma is {sigma}, less than {limit}",
    "its rho is less than the true cost at order {order}",
    "q sigma is 1 or more, and the rule holds for no order",
    "closed form",
    "contour, within a sandwich",
    "contour, beside a sandwich",
))  # fmt: skip
"""What is recognised; the first that fits is told, with its parts told in the same way."""
_PARTS = ("accountant", "budget", "claim", "how", "length", "more", "often", "problem", "promise",
          "relation", "rest", "sampler", "terms", "tries", "unit")  # fmt: skip
"""Placeholders that hold words; all others hold a number, which passes as it is."""
_NUMBER = r"[-+\d.,e∞]*[\de∞]|inf|nan"


def retold(text: str) -> str:
    """A finished English sentence in the reader's language; as it is where nobody translated it."""
    if english() or not text:
        return text
    for template, pattern in _patterns():
        if found := pattern.fullmatch(text.strip()):
            parts = {name: retold(part) for name, part in found.groupdict().items()}
            return say(template, **parts)
    return say(text)


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Each sentence with what recognises it."""
    return tuple((sentence, _pattern(sentence)) for sentence in SENTENCES)


def _pattern(sentence: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", sentence)
    named = [f"(?P<{name}>{'.*?' if name in _PARTS else _NUMBER})" for name in pieces[1::2]]
    return re.compile("".join(map("".join, zip(map(re.escape, pieces[::2]), [*named, ""],
                                               strict=True))), re.DOTALL)  # fmt: skip
