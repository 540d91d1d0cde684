"""A tiny Grounding DINO with random weights, in the format in which transformers saves the published one."""

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "red", "mug", "cat"]


def write_grounder(place, edge=64):
    """Save the model and its processor, which makes the shorter edge of an image so long, into a folder."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2, image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    configuration = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, num_queries=6, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_text_len=16,
    )  # fmt: skip
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(configuration).save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join([*WORDS, *(f"w{i}" for i in range(1000))]), encoding="utf-8")
    processor = GroundingDinoImageProcessor(size={"shortest_edge": edge, "longest_edge": 3 * edge // 2})
    GroundingDinoProcessor(processor, BertTokenizer(str(place / "vocab.txt"))).save_pretrained(place)
