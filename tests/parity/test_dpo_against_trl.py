"""DPO against trl's trainer, from the tokens of pairs of texts to the loss and its gradients."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ditbook.objectives.preference import dpo_loss, log_probs

PAIRS, LENGTH, PROMPT = 5, 9, 3
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")  # of trl's head, which the trainer reads


@pytest.fixture
def trainer():
    """What trl's trainer reads of itself, on one process: its loss of the DPO paper, and two networks that differ."""
    trl = pytest.importorskip("trl.trainer.dpo_trainer")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        sizes = {"vocab_size": 19, "n_positions": LENGTH, "n_embd": 16, "n_layer": 2, "n_head": 2}
        models.append(
            GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.5, bos_token_id=0, eos_token_id=0)).eval()
        )
        trl.add_fused_lm_head(models[-1], outputs=OUTPUTS)
    one_process = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    stub = SimpleNamespace(
        model=models[0], ref_model=models[1], accelerator=one_process,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        loss_types=["sigmoid"], loss_weights=[1.0], f_divergence_type="reverse_kl", ld_alpha=None,
        use_weighting=False, aux_loss_enabled=False, precompute_ref_logps=False,
        _metrics={"eval": defaultdict(list)}, _total_train_tokens=0,
    )  # fmt: skip
    stub.loss = lambda inputs: trl.DPOTrainer._compute_loss(stub, stub.model, inputs, return_outputs=False)
    return stub


@pytest.mark.equation("6.2", of="ditbook.objectives.preference.log_probs", against="trl, gradients too")
@pytest.mark.equation("6.19", of="ditbook.objectives.preference.dpo_loss", against="trl, gradients too")
@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 2.0])
def test_loss_and_gradients(trainer, beta):
    tokens = torch.randint(19, (2 * PAIRS, LENGTH), generator=torch.Generator().manual_seed(2))  # chosen, then rejected
    lengths = torch.arange(2 * PAIRS) % (LENGTH - PROMPT) + PROMPT + 1
    real = torch.arange(LENGTH) < lengths[:, None]
    answer = real & (torch.arange(LENGTH) >= PROMPT)
    trainer.beta = beta
    inputs = {"input_ids": tokens, "attention_mask": real.long(), "completion_mask": answer.long()}
    wanted = trainer.loss(inputs)

    preferred = torch.tensor([1, 0, 1, 1, 0.0])  # 0: the chosen text stands second

    def texts(model):
        logits = model(tokens, attention_mask=real.long()).logits[:, :-1]
        chosen, rejected = log_probs(logits, tokens[:, 1:], answer[:, 1:]).sum(dim=1).chunk(2)
        return torch.where(preferred == 1, chosen, rejected), torch.where(preferred == 1, rejected, chosen)

    with torch.no_grad():
        reference = texts(trainer.ref_model)
    loss = dpo_loss(texts(trainer.model), reference, preferred, beta)
    torch.testing.assert_close(loss, wanted)
    parameters = list(trainer.model.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(wanted, parameters), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
        assert mine.abs().max() > 0
