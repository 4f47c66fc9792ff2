"""A stand-in for a model: three cells written beforehand, and a conclusion from what they really printed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic_ai import BinaryContent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

LOAD = """\
from sklearn.datasets import load_iris

iris = load_iris(as_frame=True)
data = iris.frame.rename(columns=lambda name: name.removesuffix(" (cm)"))
data["species"] = iris.target_names[data.pop("target")]
data.groupby("species").agg(["mean", "std"]).round(2).T
"""

COMPARE = """\
measures = data.columns[:-1]
between = data.groupby("species")[measures].mean().var()
within = data.groupby("species")[measures].var().mean()
(between / within).sort_values(ascending=False).round(1).rename("between species / within")
"""

DRAW = """\
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 4.5))
for name, group in data.groupby("species"):
    axes.scatter(group["petal length"], group["petal width"], label=name, alpha=0.7)
axes.set(xlabel="petal length (cm)", ylabel="petal width (cm)", title="Iris species by their petals")
axes.legend(title="species")
plt.show()
"""

STEPS = (
    ("I load the data and look at every measurement by species.", LOAD),
    ("How far are the species apart, compared with how much each of them varies?", COMPARE),
    ("The petals tell them apart best; I draw them.", DRAW),
)

_RATIO = re.compile(r"^(?P<measure>[a-z]+ [a-z]+) +(?P<ratio>[\d.]+)$", re.MULTILINE)


def scripted_model() -> FunctionModel:
    """A model that runs the cells one after the other."""

    async def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answers = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if len(answers) == len(STEPS):
            return ModelResponse(parts=[TextPart(_conclusion(answers))])
        thought, code = STEPS[len(answers)]
        return ModelResponse(parts=[TextPart(thought), ToolCallPart("python", {"code": code})])

    return FunctionModel(respond, model_name="scripted")


def _conclusion(answers: Sequence[ToolReturnPart]) -> str:
    ratios = [(found["measure"], float(found["ratio"])) for found in _RATIO.finditer(answers[1].model_response_str())]
    images = [item for item in answers[-1].content_items() if isinstance(item, BinaryContent)]
    if not ratios or not images:
        return "The cells did not give what was to be expected; see above."
    (best, most), (worst, least) = ratios[0], ratios[-1]
    return (
        f"{best.capitalize()} tells the species apart best (the species differ {most:g} times as much as their members), "
        f"{worst} least ({least:g}). The plot I was shown, {len(images[0].data):,} bytes of {images[0].media_type}, has "
        "setosa on its own and a narrow overlap of versicolor and virginica."
    )
