"""The share of the output that is reasoning, from LiteLLM's counters: no engine exports it.

Both counters are written when a request ends, and a thought ends minutes after its tokens: so a share of the last
hour, not an increase of the last seconds. It belongs to the model that clients ask for (``requested_model``),
wherever the proxy runs, hence no namespace. Without the counter of reasoning tokens (LiteLLM before 2026) there is
no answer, and all output counts as reasoning.
"""

from typing import Final

from longtail.signals.promql import aggregated
from longtail.signals.vocabulary import Part, Series, age_of

ENGINE: Final = "litellm"
MODEL: Final = "requested_model"
OUTPUT: Final = "litellm_output_tokens_metric_total"
REASONING: Final = "litellm_output_reasoning_tokens_metric_total"
_WINDOW: Final = "1h"


def parts() -> tuple[Part, ...]:
    """Share by requested model, and the age of what it rests on."""
    reasoning, output = (aggregated("sum", f"increase({name}[{_WINDOW}])", (MODEL,)) for name in (REASONING, OUTPUT))
    age = aggregated("min", age_of(OUTPUT), (MODEL,))
    return (
        Part(ENGINE, Series.REASONING_SHARE, f"({reasoning} / {output})", object_label=MODEL),
        Part(ENGINE, Series.SAMPLE_AGE, age, object_label=MODEL),
    )
