"""Published numbers, shown beside ours and never mixed with them.

Source: "FocusDPO: Dynamic Preference Optimization for Multi-Subject Personalized Image Generation via Adaptive Focus"
(AAAI 2026), tables 1 and 2: DreamBench, objects, whole images; DINO, CLIP-I and CLIP-T. Its text gives 0.326 as CLIP-T
of UNO + FocusDPO with several subjects, where the table has 0.328.
"""

Scores = tuple[float, float, float]
"""DINO, CLIP-I, CLIP-T."""

SINGLE: dict[str, Scores] = {
    "DreamBooth": (0.668, 0.803, 0.305),
    "SSR-Encoder": (0.612, 0.821, 0.308),
    "RealCustom++": (0.702, 0.794, 0.318),
    "OmniGen": (0.693, 0.801, 0.315),
    "OminiControl": (0.684, 0.799, 0.312),
    "DreamO": (0.712, 0.809, 0.314),
    "IPAP": (0.692, 0.826, 0.281),
    "IPAP + SFT": (0.691, 0.828, 0.279),
    "IPAP + DPO": (0.695, 0.831, 0.276),
    "IPAP + PatchDPO": (0.727, 0.838, 0.292),
    "IPAP + FocusDPO": (0.751, 0.840, 0.303),
    "UNO": (0.760, 0.835, 0.304),
    "UNO + SFT": (0.761, 0.832, 0.299),
    "UNO + DPO": (0.764, 0.835, 0.301),
    "UNO + FocusDPO": (0.802, 0.842, 0.316),
}
"""Table 1: a single object."""
MULTI: dict[str, Scores] = {
    "DreamBooth": (0.430, 0.695, 0.308),
    "MS-Diffusion": (0.525, 0.726, 0.319),
    "OmniGen": (0.511, 0.722, 0.331),
    "DreamO": (0.539, 0.727, 0.313),
    "UNO": (0.542, 0.733, 0.322),
    "UNO + SFT": (0.542, 0.732, 0.321),
    "UNO + DPO": (0.545, 0.731, 0.322),
    "UNO + FocusDPO": (0.570, 0.739, 0.328),
}
"""Table 2: several objects."""


def as_text() -> str:
    """Both tables; other data, models and metrics than ours."""
    lines = ["published (DreamBench, objects; not comparable with the above)"]
    for title, rows in (("single", SINGLE), ("multi", MULTI)):
        lines.append(f"{title:<18}{'DINO':>8}{'CLIP-I':>8}{'CLIP-T':>8}")
        lines += [f"{name:<18}" + "".join(f"{score:>8.3f}" for score in scores) for name, scores in rows.items()]
    return "\n".join(lines) + "\n"
