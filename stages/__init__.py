"""The shell around mcpipe: one thin module per stage of the pipeline, in order; paths in, paths out."""

STAGES = {
    "world": "s00_world",
    "frames": "s01_frames",
    "subjects": "s02_subjects",
    "identity": "s03_identity",
    "captions": "s04_captions",
    "samples": "s05_samples",
    "encode": "s06_encode",
    "train_single": "s07_train_single",
    "train_multi": "s08_train_multi",
    "pairs": "s09_pairs",
    "train_rl": "s10_train_rl",
    "generate": "s11_generate",
    "evaluate": "s12_evaluate",
    "report": "s13_report",
}
"""Stage name, which is also its section in params.yaml, and the module that runs it."""
