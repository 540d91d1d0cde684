"""A folder says which detector of phrases it holds."""

import json

import pytest

from mcpipe.models import grounders
from mcpipe.models.grounders import load_grounder


@pytest.mark.parametrize("kind", ["florence2", "grounding-dino"])
def test_the_model_type_chooses_the_adapter(kind, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    monkeypatch.setitem(grounders.KINDS, kind, lambda folder, min_score: (kind, folder, min_score))
    assert load_grounder(tmp_path, 0.3) == (kind, tmp_path, 0.3)


@pytest.mark.parametrize(("content", "reason"), [
    ('{"model_type": "clip"}', "it holds a clip model, not florence2 or grounding-dino"),
    ("{}", "config.json is damaged: KeyError"), ("[]", "config.json is damaged"), ("{", "config.json is damaged"),
])  # fmt: skip
def test_other_folders_are_refused_in_one_line(content, reason, tmp_path):
    with pytest.raises(FileNotFoundError, match="no grounder folder"):
        load_grounder(tmp_path / "gone", 0.3)
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=reason) as caught:
        load_grounder(tmp_path, 0.3)
    assert "\n" not in str(caught.value)
