"""Attention maps beside a network that is checkpointed or compiled."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from flux_fixtures import IMAGE_SIZE, INDUCTOR, REFERENCE_SIZE, give_values
from training_fixtures import MULTI

from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter, trainable
from mcpipe.flux.attention import AttentionCapture, attention_maps
from mcpipe.flux.backbone import load_generator, rotated
from mcpipe.flux.moe_lora import mean_balance, usage
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.objectives.flow import noised
from mcpipe.train.loop.data import Draws, EncodedSet, TrainingSample, draw
from mcpipe.train.multi import held_out_scores, scores_by_noise
from mcpipe.train.supervised import NOISE_BINS, reference_gain

SPEC = AdapterSpec(
    rank=4,
    experts=ExpertParams(num_experts=4, top_k=1, router="st"),
    image_size=IMAGE_SIZE,
    reference_size=REFERENCE_SIZE,
)


def network_on(generator):
    """A generator with an adapter that changes what it computes."""
    add_adapter(generator.transformer, SPEC, seed=0)
    give_values(generator.transformer)
    return ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), guidance=3.5)


@pytest.fixture
def network(generator):
    return network_on(generator)


def inputs():
    random = torch.Generator().manual_seed(1)
    shapes = {"noisy": (2, 16, 16), "text": (2, 12, 24), "pooled": (2, 16), "references": (2, 2, 4, 16)}
    noisy, text, pooled, references = (torch.randn(shape, generator=random) for shape in shapes.values())
    present = torch.ones(2, 2, dtype=torch.bool)
    return noisy, torch.tensor([0.3, 0.8]), Conditions(text, pooled, references, present)


def step(network, capture):
    """Velocity, maps, shares of experts and gradients of one training step."""
    out = network(*inputs())
    maps = capture.mean()
    (out.square().mean() + maps[..., :5].sum() + mean_balance(network, "batch")).backward()
    gradients = {name: weight.grad.clone() for name, weight in trainable(network).items()}
    network.zero_grad(set_to_none=True)
    return out.detach(), maps.detach(), usage(network.transformer), gradients


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=INDUCTOR)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_train_alike(short_generator_folder, checkpointing, backend, monkeypatch):
    """With maps, experts and their gradients in one graph per block; maps can also be taken afterwards."""
    network = network_on(load_generator(short_generator_folder))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks cannot be compiled
    with AttentionCapture(network.transformer, network.layout) as capture:
        expected = step(network, capture)
    maps = attention_maps(network, *inputs())
    if checkpointing:
        network.transformer.train()
        network.transformer.enable_gradient_checkpointing()
    with AttentionCapture(network.transformer, network.layout) as capture:
        network.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
        for _ in range(2):
            actual = step(network, capture)
            for ours, theirs in zip(actual, expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attention_maps(network, *inputs()), maps)
    torch.compiler.reset()


def kept_bytes(network, capture):
    """Size of everything that autograd keeps of a forward pass."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = network(*inputs())
        maps = capture.mean() if capture else None
    assert out.grad_fn is not None
    return sum(kept.values()), maps


def test_maps_keep_nothing_that_the_network_does_not_keep(network):
    alone, _ = kept_bytes(network, None)
    with AttentionCapture(network.transformer, network.layout) as capture:
        beside, maps = kept_bytes(network, capture)
    queries = 2 * network.layout.num_reference_tokens * network.transformer.inner_dim * 4
    assert maps.grad_fn is not None
    assert beside - alone < queries, "less than the queries of one sample in one block"


def test_the_other_direction_says_which_tokens_of_the_image_look_at_a_reference(network):
    """Against the probabilities of plain attention, with the keys of text left out."""
    blocks, calls = network.transformer.transformer_blocks, []
    hooks = [block.attn.register_forward_hook(lambda *call: calls.append(call), with_kwargs=True) for block in blocks]
    with torch.no_grad(), AttentionCapture(network.transformer, network.layout, "image_to_reference") as capture:
        network(*inputs())
        maps = capture.mean()
    for hook in hooks:
        hook.remove()
    picture, size, expected = network.layout.num_image_tokens, network.layout.num_reference_tokens, []
    with torch.no_grad():
        for attention, _, call, _ in calls:
            hidden, (cos, sin) = call["hidden_states"], call["image_rotary_emb"]
            rotary = tuple(table[-hidden.shape[1] :] for table in (cos, sin))
            query, key = (
                rotated(norm(project(hidden).unflatten(-1, (attention.heads, -1))), rotary).transpose(1, 2)
                for norm, project in ((attention.norm_q, attention.to_q), (attention.norm_k, attention.to_k))
            )
            scores = torch.einsum("bhqd,bhkd->bhqk", query, key)[:, :, :picture] / query.shape[-1] ** 0.5
            seen = scores.softmax(-1).mean(1)
            seen = torch.stack([seen[..., picture + i * size :][..., :size].sum(-1) for i in range(2)], 1)
            expected.append(seen / seen.sum(-1, keepdim=True))
    torch.testing.assert_close(maps, torch.stack(expected).mean(0))
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2))
    torch.testing.assert_close(attention_maps(network, *inputs(), "image_to_reference").flatten(2), maps)
    assert not torch.allclose(maps, attention_maps(network, *inputs()).flatten(2), atol=1e-3)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_other_direction_has_gradients(network, checkpointing):
    network.transformer.train()
    if checkpointing:
        network.transformer.enable_gradient_checkpointing()
    with AttentionCapture(network.transformer, network.layout, "image_to_reference") as capture:
        out = network(*inputs())
        (0.0 * out.sum() + capture.mean()[..., :5].sum()).backward()
    gradients = [weight.grad for weight in trainable(network).values() if weight.grad is not None]
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def test_blocks_that_run_again_do_not_replace_maps(network):
    network.transformer.train()
    network.transformer.enable_gradient_checkpointing()
    with AttentionCapture(network.transformer, network.layout) as capture:
        out = network(*inputs())
        (out.square().mean() + capture.mean()[..., :5].sum()).backward()
        assert all(maps.grad_fn is not None for maps in capture._maps.values())
        before = dict(capture._maps)
        out = network(*inputs())
        assert all(capture._maps[index] is not maps for index, maps in before.items()), "another pass"
        before = dict(capture._maps)
        (out.square().mean() + capture.mean()[..., :5].sum()).backward()
        assert all(capture._maps[index] is maps for index, maps in before.items()), "what they are made of would stay"


def test_scores_are_told_for_the_quarter_of_the_noise_levels_that_they_belong_to():
    masks = torch.zeros(3, 2, 4, dtype=torch.bool)
    masks[:, 0, :2] = True  # the second subject has none
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25] * 4, [0.7, 0.1, 0.1, 0.1]])[:, None].repeat(1, 2, 1)
    watched, counts = scores_by_noise(attention, masks, torch.tensor([0.1, 0.2, 1.0]))
    assert watched["attention_inside_t00_25"] == pytest.approx((0.3 + 0.5) / 2)
    assert watched["attention_inside_t75_100"] == pytest.approx(0.8)
    assert watched["attention_peak_inside_t75_100"] == 1
    assert [counts[f"attention_inside_t{name}"] for name in ("00_25", "25_50", "50_75", "75_100")] == [2, 0, 0, 1]


def with_closeups(sample):
    """The sample with a close-up of every person, a scaled image of all."""
    alone = (
        replace(sample, clean=sample.clean * (person + 2), references=sample.references[[person]],
                masks=sample.masks[[person]])
        for person in range(len(sample.references))
    )  # fmt: skip
    return replace(sample, closeups=tuple(alone))


def encoded(masks, num_references=2):
    """One sample, for training and held out."""
    random = torch.Generator().manual_seed(2)
    text = torch.randn(12, 24, generator=random), torch.randn(16, generator=random)
    references = torch.randn(num_references, 4, 16, generator=random)
    clean = torch.randn(16, 16, generator=random)
    sample = with_closeups(TrainingSample("clip_1", clean, references, masks, "two people", text))
    return EncodedSet([sample], [sample], text, IMAGE_SIZE, REFERENCE_SIZE)


def test_held_out_scores_tell_attention_per_noise_level_and_tokens_per_expert(network):
    everywhere = torch.ones(2, 16, dtype=torch.bool)
    scores = held_out_scores(network, encoded(everywhere), MULTI)
    assert list(scores["attention"]) == ["0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00"]
    for level in scores["attention"].values():
        assert level == pytest.approx({"attention_inside": 1.0, "attention_peak_inside": 1.0})
    assert len(scores["expert_shares"]) == 6, "four layers in double blocks, two in single ones"
    kinds = [list(shares) for shares in scores["expert_shares"].values()]
    assert kinds == 2 * [["picture", "references"], ["text"]] + 2 * [["text", "picture", "references"]]
    shares = [share for layer in scores["expert_shares"].values() for share in layer.values()]
    assert all(sum(share) == pytest.approx(1, abs=1e-3) for share in shares)
    left = everywhere & (torch.arange(16) % 4 < 2)
    first, again = (held_out_scores(network, encoded(left), MULTI) for _ in range(2))
    assert first == again
    inside = [scores["attention_inside"] for scores in first["attention"].values()]
    assert 0 < min(inside) < max(inside) < 1
    right = held_out_scores(network, encoded(everywhere & ~left), MULTI)["attention"].values()
    assert [1 - scores["attention_inside"] for scores in right] == pytest.approx(inside, abs=1e-5)


def test_gain_of_references_is_the_loss_that_wrong_ones_cost(network):
    left = torch.zeros(2, 16, dtype=torch.bool)
    left[:, :6] = True
    first = encoded(left)
    other = with_closeups(TrainingSample(
        "clip_2", first.val[0].clean * 0.5, first.val[0].references.flip(1), left, "", first.val[0].text
    ))  # fmt: skip
    data = EncodedSet([first.val[0]], [first.val[0], other], first.empty, IMAGE_SIZE, REFERENCE_SIZE)
    draws = Draws(3, 1, 1.5, 0.5, one_reference=False)
    gains = reference_gain(network, data, draws, num=2)
    expected = {"right": [], "others": [], "swapped": []}
    for position in range(2):
        sample, noise, _ = draw(data, data.val, Draws(3, 1, 1.5, 0.0, one_reference=False), position)
        wrong = other if sample.key == "clip_1" else first.val[0]
        by_kind = {"right": sample.references, "others": wrong.references, "swapped": sample.references.flip(0)}
        for t in NOISE_BINS.values():
            losses = {}
            for kind, references in by_kind.items():
                level, present = torch.tensor([t]), torch.ones(1, 2, dtype=torch.bool)
                text, pooled = sample.text
                conditions = Conditions(text[None], pooled[None], references[None], present)
                with torch.no_grad():
                    velocity = network(noised(sample.clean[None], noise[None], level), level, conditions)[0]
                losses[kind] = float((velocity - (noise - sample.clean))[:6].square().mean())
            for kind, loss in losses.items():
                expected[kind].append(loss - (losses["right"] if kind != "right" else 0))
    for kind, values in expected.items():
        assert gains[kind]["mean"] == pytest.approx(sum(values) / len(values), rel=1e-4, abs=1e-6)
    assert abs(gains["others"]["mean"]) > 1e-4, "it matters"
    single = reference_gain(network, data, Draws(3, 1, 1.5, 0.0, one_reference=True), num=2)
    assert set(single) == {"right", "others"}
    alone, _, _ = draw(data, data.val, Draws(3, 1, 1.5, 0.0, one_reference=True), 0)
    assert any(torch.equal(alone.clean, each.clean) for sample in data.val for each in sample.closeups)
    assert alone.references.shape[0] == len(alone.masks) == 1


@pytest.mark.parametrize("direction", ["reference_to_image", "image_to_reference"])
def test_chosen_blocks_alone_are_recorded(network, direction):
    """The mean over all blocks is that of the maps of every block alone."""
    alone = []
    for blocks in ([0], [1], [1, 0, 0]):
        with torch.no_grad(), AttentionCapture(network.transformer, network.layout, direction, blocks) as capture:
            network(*inputs())
            alone.append(capture.mean())
    everywhere = attention_maps(network, *inputs(), direction).flatten(2)
    assert not torch.allclose(alone[0], alone[1], atol=1e-4), "blocks differ"
    torch.testing.assert_close((alone[0] + alone[1]) / 2, everywhere)
    assert torch.equal(alone[2], everywhere)


@pytest.mark.parametrize("index", [2, -1])
def test_a_block_that_does_not_exist_is_named(network, index):
    with pytest.raises(ValueError, match=rf"no double block {index}: the transformer has 2, counted from 0"):
        AttentionCapture(network.transformer, network.layout, blocks=[0, index])
