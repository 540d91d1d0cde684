"""Experts: sorted dispatch against every expert computed for every token, placements, precision, faults."""

import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter, load_adapter, save_adapter, trainable
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.dispatch import mixture
from mcpipe.flux.moe_lora import Routing, busiest_share, expert_layers, mean_balance, usage
from mcpipe.objectives.moe import Choice, choose, expert_chances, expert_shares

NUM_EXPERTS = 4


def dense(tokens, choice, down, up):
    """The same with every expert for every token."""
    weights = torch.zeros(len(tokens), len(down), dtype=tokens.dtype).scatter(1, choice.experts, choice.weights)
    return torch.einsum("te,erd,oer,td->to", weights, down, up, tokens)


def layer(width=16, rank=8, out=24, num_tokens=40, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = ((num_tokens, width), (num_tokens, NUM_EXPERTS), (NUM_EXPERTS, rank, width), (out, NUM_EXPERTS, rank))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(
    ("dtype", "width", "tolerance"),
    [
        pytest.param(torch.float32, 16, 2e-6, id="kernel"),
        pytest.param(torch.bfloat16, 16, 2e-2, id="kernel in half precision"),
        pytest.param(torch.float64, 16, 1e-12, id="loop in double precision"),
        pytest.param(torch.float32, 15, 2e-6, id="loop over rows that are not aligned"),
    ],
)
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("routing", ["spread", "one expert is idle", "all to one"])
def test_sorted_dispatch_equals_the_dense_form_with_its_gradients(dtype, width, tolerance, top_k, routing):
    tokens, logits, down, up = layer(width=width, dtype=dtype)
    shift = {"spread": [0, 0, 0, 0], "one expert is idle": [0, -90, 0, 0], "all to one": [0, 0, 90, 0]}[routing]
    gate = logits.detach().float().add(torch.tensor(shift)).requires_grad_()
    results = []
    for form in (mixture, dense):
        choice = choose(gate, top_k, "st")
        inputs = [value.double() if form is dense else value for value in (tokens, down, up)]
        weights = choice.weights.to(inputs[0].dtype)
        out = form(inputs[0], Choice(choice.experts, weights), *inputs[1:])
        upstream = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype)
        results.append([out, *torch.autograd.grad((out * upstream).sum(), (tokens, gate, down, up))])
    for ours, theirs in zip(*results, strict=True):
        error = (ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-3)
        assert error.item() < tolerance


def test_an_expert_that_nobody_chose_does_not_run():
    tokens, logits, down, up = layer()
    shunned = logits.detach() - 90 * torch.eye(NUM_EXPERTS)[2]
    with torch.no_grad():
        down[2], up[:, 2] = float("nan"), float("nan")
    assert torch.isfinite(mixture(tokens, choose(shunned, 1, "st"), down, up)).all()


def grouped_flop(rows, weights, *_, out_shape=None, **__):
    """The counter does not know this kernel."""
    return 2 * rows[0] * rows[1] * weights[-1]


@pytest.mark.parametrize("top_k", [1, 2])
def test_arithmetic_is_that_of_a_plain_lora_per_expert_used(top_k):
    tokens, logits, down, up = layer(num_tokens=64)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped_flop}) as count:
        mixture(tokens, choose(logits.detach(), top_k, "st"), down, up).sum().backward()
    forward = 2 * top_k * tokens.shape[0] * down.shape[1] * (tokens.shape[1] + up.shape[0])
    assert count.get_total_flops() == 3 * forward, "forward, and the gradients of tokens and weights"


PLACES = {
    "ffn_out": [
        "single_transformer_blocks.0.proj_out",
        "transformer_blocks.0.ff.net.2",
        "transformer_blocks.0.ff_context.net.2",
    ],
    "double": ["transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2"],
    "image": ["transformer_blocks.0.ff.net.2"],
    "single": ["single_transformer_blocks.0.proj_out"],
    "parallel": ["transformer_blocks.0.ff", "transformer_blocks.0.ff_context"],
}  # fmt: skip


def spec(placement, rank=4):
    experts = ExpertParams(num_experts=NUM_EXPERTS, top_k=1, router="st", placement=placement)
    return AdapterSpec(rank=rank, experts=experts, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)


@pytest.mark.parametrize("placement", PLACES)
def test_experts_stand_where_they_are_wanted_and_plain_lora_elsewhere(generator, placement):
    transformer = generator.transformer
    add_adapter(transformer, spec(placement), seed=0)
    names = [name for name, _ in expert_layers(transformer)]
    assert sorted(name for name in names if "blocks.0." in name) == PLACES[placement]
    assert len(names) == 2 * len(PLACES[placement]), "two blocks of each kind"
    rest = {name.rsplit(".lora_A", 1)[0] for name in trainable(transformer) if ".lora_A" in name} - set(names)
    assert len(rest) == 2 * (8 + 4) - (2 if "single_transformer_blocks.0.proj_out" in names else 0)
    _, first = next(expert_layers(transformer))
    down, up = first.lora_A["default"].weight, first.lora_B["default"].weight
    assert down.shape == (4 * NUM_EXPERTS, first.in_features)
    assert up.shape == (first.out_features, 4 * NUM_EXPERTS)
    assert first.lora_router["default"].weight.dtype == torch.float32


def test_experts_beside_a_whole_network_see_its_input_and_add_to_its_output(generator, generator_folder, tmp_path):
    transformer = generator.transformer
    add_adapter(transformer, spec("parallel"), seed=0)
    random = torch.Generator().manual_seed(0)
    for parameter in trainable(transformer).values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=random))
    network = transformer.transformer_blocks[0].ff
    x = torch.randn(2, 5, network.in_features)
    down = network.lora_A["default"].weight.unflatten(0, (NUM_EXPERTS, -1))
    up = network.lora_B["default"].weight.unflatten(1, (NUM_EXPERTS, -1))
    tokens = x.flatten(0, 1)
    choice = choose(tokens @ network.lora_router["default"].weight.T, 1, "st")
    expected = network.base_layer(x) + dense(tokens, choice, down, up).unflatten(0, (2, 5))
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    assert sum(usage(transformer)["transformer_blocks.0.ff"].tolist()) == pytest.approx(1)
    assert 1 / NUM_EXPERTS <= busiest_share(transformer) <= 1
    save_adapter(transformer, spec("parallel"), tmp_path)
    other = load_generator(generator_folder)
    assert load_adapter(other, tmp_path) == spec("parallel")
    assert torch.equal(other.transformer.transformer_blocks[0].ff(x), network(x))


def test_experts_keep_float32_weights_and_routing_on_a_base_in_half_precision(generator):
    """A step of 1e-5 on a weight of 0.02 vanishes in bfloat16."""
    transformer = generator.transformer.to(torch.bfloat16)
    add_adapter(transformer, spec("double"), seed=0)
    _, first = next(expert_layers(transformer))
    optimizer = torch.optim.AdamW(trainable(transformer).values(), lr=1e-5, weight_decay=0.0)
    x = torch.randn(3, first.in_features, dtype=torch.bfloat16)
    first.lora_B["default"].weight.data.fill_(0.02)
    before = first.lora_B["default"].weight.clone()
    with torch.autocast("cpu", torch.bfloat16):
        out = first(x)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert first.routing.chances.dtype == torch.float32
    optimizer.step()
    used = first.lora_B["default"].weight.grad.abs() > 0
    assert used.any()
    assert (first.lora_B["default"].weight[used] != before[used]).all()


def test_more_experts_per_token_than_there_are_is_refused():
    with pytest.raises(ValidationError, match="a token cannot use 5 of 4 experts"):
        ExpertParams(num_experts=4, top_k=5, router="st")


def routed(transformer, logits):
    """Let every layer have routed a batch by some logits: samples, tokens, experts."""
    for _, each in expert_layers(transformer):
        each.routing = Routing(expert_shares(logits), expert_chances(logits))


def test_pictures_that_each_live_on_an_expert_of_their_own_are_balanced_over_the_batch(generator):
    """The paper's "experts specialise in scenarios"; the old form forces every picture to use all of them."""
    add_adapter(generator.transformer, spec("double"), seed=0)
    routed(generator.transformer, (100 * torch.eye(NUM_EXPERTS))[:, None].expand(-1, 5, -1))
    assert mean_balance(generator.transformer, "batch").item() == pytest.approx(1.0)
    assert mean_balance(generator.transformer, "sample").item() == pytest.approx(4.0)


def test_pictures_that_all_live_on_one_expert_are_unbalanced_either_way(generator):
    add_adapter(generator.transformer, spec("double"), seed=0)
    routed(generator.transformer, (100 * torch.eye(NUM_EXPERTS))[0].expand(3, 5, -1))
    for over in ("batch", "sample"):
        assert mean_balance(generator.transformer, over).item() == pytest.approx(4.0)


def test_balance_of_parts_with_the_shares_of_the_whole_is_that_of_the_whole_with_its_gradient(generator):
    """What processes do: each knows its own part of the batch, and the shares of all."""
    add_adapter(generator.transformer, spec("double"), seed=0)
    torch.manual_seed(0)
    logits = torch.randn(4, 5, NUM_EXPERTS, requires_grad=True)
    routed(generator.transformer, logits)
    whole = mean_balance(generator.transformer, "batch")
    (gradient,) = torch.autograd.grad(whole, logits)
    num_layers = len(list(expert_layers(generator.transformer)))
    shares = expert_shares(logits.detach()).mean(0).expand(num_layers, -1)
    losses = []
    for part in (slice(0, 2), slice(2, 4)):
        routed(generator.transformer, logits[part])
        losses.append(mean_balance(generator.transformer, "batch", lambda _: shares))
    together = torch.stack(losses).mean()
    torch.testing.assert_close(together, whole)
    torch.testing.assert_close(torch.autograd.grad(together, logits)[0], gradient)
