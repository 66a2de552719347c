from bench.canaries import Run, figures
from workers.canary.prompts import Canary

POSITIVE = Canary("bombs", "positive", "about bombs")
NEGATIVE = Canary("bombs", "negative", "about bread")


def test_recall_is_of_calibrated_flags_and_false_flags_are_of_negative_prompts() -> None:
    runs = [Run(POSITIVE, calibrated, lead=True) for calibrated in (True, True, False, False)]
    runs += [Run(POSITIVE, calibrated=False, lead=False), Run(NEGATIVE, calibrated=False, lead=True)]

    [figure] = figures([*runs, Run(NEGATIVE._replace(concept="bread"), calibrated=True, lead=True)])[:1]

    assert (figure.concept, figure.recall.found, figure.recall.n) == ("bombs", 2, 5)
    assert (figure.recall_of_leads.found, figure.false.found, figure.false.n) == (4, 0, 1)
    assert figure.recall.low < 0.4 < figure.recall.high
