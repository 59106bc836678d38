"""The student without layers: mean of token vectors, one linear layer."""

import numpy as np
import pytest
import torch
from transformers import set_seed

from kdhelpers import models
from kdhelpers.errors import UserError
from kdhelpers.settings import settings_from
from tests.tiny import FAMILIES, family_tokenizer, save_model, tiny_model

TEXTS = ["this film was lovely and the plot felt fine", "dull"]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_head_of_the_mean_of_the_token_vectors(family, tmp_path):
    set_seed(0)
    parent, tokenizer = tiny_model(family, labels=3), family_tokenizer(family)
    student = models.cut_layers(parent, 0)
    vectors = parent.get_input_embeddings().weight.detach().numpy()
    means = np.stack([vectors[tokenizer(text)["input_ids"]].mean(0) for text in TEXTS])
    head = student.classifier
    expected = means @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    np.testing.assert_allclose(student(**batch).logits.detach(), expected, atol=1e-6)
    save_model(tmp_path, student, tokenizer)
    loaded = models.load_classifier(str(tmp_path), None)
    assert loaded.has_head
    assert (models.num_layers(loaded.model), loaded.model.config.num_labels) == (0, 3)
    again = models.load_tokenizer(str(tmp_path))(TEXTS, padding=True, return_tensors="pt")
    np.testing.assert_allclose(loaded.model(**again).logits.detach(), expected, atol=1e-6)


def test_it_shares_nothing_with_its_parent_and_its_loss_is_cross_entropy():
    set_seed(0)
    parent = tiny_model("bert")
    student = models.static_student(parent)
    before = parent.get_input_embeddings().weight.detach().clone()
    batch = family_tokenizer("bert")(TEXTS, padding=True, return_tensors="pt")
    output = student(**batch, labels=torch.tensor([0, 1]))
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1])))
    output.loss.backward()
    with torch.no_grad():
        student.embeddings.weight -= student.embeddings.weight.grad
    assert torch.equal(parent.get_input_embeddings().weight, before)


def test_static_is_another_word_for_no_layers_and_trains_its_vectors():
    settings = settings_from({"student": "static"})
    assert settings == settings_from({"student-layers": "0"})
    assert (settings.student, settings.student_layers, settings.train_embeddings) == (None, 0, True)
    assert settings.learning_rate == 1e-3
    assert settings_from({"student": "static", "learning_rate": 2e-3}).learning_rate == 2e-3
    assert settings_from({"recipe": "movie-snippets-base", "student": "static"}).student == "minilm-l6-h384"
    with pytest.raises(UserError, match="static has no layers"):
        settings_from({"student": "static", "student_layers": 3})


def test_its_own_loss_is_that_of_its_task():
    set_seed(0)
    batch = family_tokenizer("bert")(TEXTS, padding=True, return_tensors="pt")
    for kind, labels, loss in (
        ("multi_label_classification", torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.nn.BCEWithLogitsLoss()),
        ("regression", torch.tensor([1.0, -2.0]), lambda logits, wanted: ((logits[:, 0] - wanted) ** 2).mean()),
    ):
        student = models.static_student(tiny_model("bert", labels=1 if kind == "regression" else 2))
        student.config.problem_type = kind
        output = student(**batch, labels=labels)
        torch.testing.assert_close(output.loss, loss(output.logits, labels))


def test_hidden_states_are_refused_before_anything_is_trained():
    with pytest.raises(UserError, match="no hidden states"):
        settings_from({"student": "static", "hidden_states": "pkd"})
